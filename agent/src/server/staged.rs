//! Bytes uploaded in pieces for a later operation (E-102).

use std::collections::BTreeMap;

use provium_protocol::ops::Blob;
use provium_protocol::{Error, ErrorKind, MAX_STAGED};

/// Uploads of one connection.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Bytes and whether they are complete.
    uploads: BTreeMap<u64, (Vec<u8>, bool)>,
    total: usize,
}

impl Staged {
    /// Appends a piece.
    pub(crate) fn add(&mut self, key: u64, data: &[u8], last: bool) -> Result<(), Error> {
        if self.total + data.len() > MAX_STAGED {
            let message = format!("more than {MAX_STAGED} bytes staged");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let (bytes, complete) = self.uploads.entry(key).or_default();
        if *complete {
            return Err(bad(format!(
                "field `key`: upload {key} is complete already"
            )));
        }
        bytes.extend_from_slice(data);
        *complete = last;
        self.total += data.len();
        Ok(())
    }

    /// The bytes an operation means; staged ones are dropped here.
    pub(crate) fn take(&mut self, blob: Blob) -> Result<Vec<u8>, Error> {
        let key = match blob {
            Blob::Inline(bytes) => return Ok(bytes),
            Blob::Staged(key) => key,
        };
        match self.uploads.remove(&key) {
            Some((bytes, true)) => {
                self.total -= bytes.len();
                Ok(bytes)
            }
            Some(incomplete) => {
                self.uploads.insert(key, incomplete);
                Err(bad(format!("field `staged`: upload {key} is not complete")))
            }
            None => Err(bad(format!("field `staged`: there is no upload {key}"))),
        }
    }

    /// The bytes of several.
    pub(crate) fn take_all(&mut self, blobs: Vec<Blob>) -> Result<Vec<Vec<u8>>, Error> {
        blobs.into_iter().map(|blob| self.take(blob)).collect()
    }
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::BadArgs, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E-102: pieces come together, are used once, and are bounded.
    #[test]
    fn uploads_are_used_once() {
        let mut staged = Staged::default();
        staged.add(1, b"ab", false).unwrap();
        assert_eq!(
            staged.take(Blob::Staged(1)).unwrap_err().kind,
            ErrorKind::BadArgs
        );
        staged.add(1, b"c", true).unwrap();
        assert_eq!(
            staged.add(1, b"d", true).unwrap_err().kind,
            ErrorKind::BadArgs
        );
        assert_eq!(staged.take(Blob::Staged(1)).unwrap(), b"abc");
        assert_eq!(
            staged.take(Blob::Staged(1)).unwrap_err().kind,
            ErrorKind::BadArgs
        );
        assert_eq!(staged.total, 0);
        let large = vec![0; MAX_STAGED];
        staged.add(2, &large, false).unwrap();
        assert_eq!(
            staged.add(3, b"x", true).unwrap_err().kind,
            ErrorKind::TooLarge
        );
    }
}
