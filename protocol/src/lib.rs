//! Host-agent messages and the event stream: types, framing, version.
