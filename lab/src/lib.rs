//! The domain: labs, virtual machines, processes, files, streams.
