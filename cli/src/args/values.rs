//! What values of flags look like.

use std::time::Duration;

use provium_lab::units;

/// The deadline of a file, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileTimeout(pub(crate) Option<Duration>);

pub(super) fn parse_timeout(text: &str) -> Result<FileTimeout, units::UnitError> {
    let limit = units::parse_duration(text)?;
    Ok(FileTimeout((!limit.is_zero()).then_some(limit)))
}

pub(super) fn parse_size(text: &str) -> Result<u64, units::UnitError> {
    units::parse_size(text)
}

pub(super) fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "expected a number of files, at least 1, got `{text}`"
        )),
        Ok(jobs) => Ok(jobs),
    }
}

pub(super) fn parse_factor(text: &str) -> Result<f64, String> {
    let factor: Option<f64> = text.parse().ok().filter(|factor: &f64| factor.is_finite());
    factor.ok_or_else(|| format!("expected a number from 0.5 to 8, got `{text}`"))
}

/// `I/N`, 1-based.
pub(super) fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let malformed = || format!("expected I/N with I from 1 to N, got `{text}`");
    let (index, total) = text.split_once('/').ok_or_else(malformed)?;
    let index: usize = index.parse().map_err(|_| malformed())?;
    let total: usize = total.parse().map_err(|_| malformed())?;
    if index == 0 || index > total {
        return Err(malformed());
    }
    Ok((index, total))
}
