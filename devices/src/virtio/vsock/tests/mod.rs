//! The socket device between a mock guest and real host handles.

mod guest;
mod hostile;
mod lifecycle;
mod threads;
mod transfer;
