//! Those who hear the news of a run and make something of it: text, JSON, an event file.
//!
//! Every reporter hears the same news in the same order, so their outputs agree (E-035, E-036).
//! One that fails is dropped with a note; the run goes on.

mod classic;
mod consoles;
mod events;
mod html;
mod json;
mod junit;
mod paint;
mod progress;
mod screen;
mod socket;
mod text;

use std::io;

pub(crate) use classic::Classic;
pub(crate) use events::EventWriter;
pub(crate) use html::Html;
pub(crate) use json::Json;
pub(crate) use junit::Junit;
pub(crate) use progress::Progress;
pub(crate) use screen::{Screen, Stream};
pub(crate) use socket::{EventSocket, SocketError};
pub(crate) use text::{Text, Verbosity};

use crate::news::Stamped;

/// Makes something of the news.
pub(crate) trait Reporter {
    /// What it is called when it fails.
    fn name(&self) -> &str;

    /// Hears one piece of news.
    fn hear(&mut self, news: &Stamped) -> io::Result<()>;

    /// Some time has passed without news.
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All reporters of a run.
#[derive(Default)]
pub(crate) struct Reporters {
    all: Vec<Box<dyn Reporter>>,
}

impl Reporters {
    /// Adds one; they hear in the order in which they were added.
    pub(crate) fn add(&mut self, reporter: impl Reporter + 'static) {
        self.all.push(Box::new(reporter));
    }

    /// Tells everybody.
    pub(crate) fn tell(&mut self, news: &Stamped) {
        self.each(|reporter| reporter.hear(news));
    }

    /// Lets time pass for everybody.
    pub(crate) fn tick(&mut self) {
        self.each(|reporter| reporter.tick());
    }

    /// A failing reporter is reported once and hears no more (E-036).
    fn each(&mut self, mut act: impl FnMut(&mut dyn Reporter) -> io::Result<()>) {
        self.all
            .retain_mut(|reporter| match act(reporter.as_mut()) {
                Ok(()) => true,
                Err(error) => {
                    eprintln!(
                        "provium: {}: {error}; it is left out from here on",
                        reporter.name()
                    );
                    false
                }
            });
    }
}
