//! What the program asks of the terminal it runs on.

/// Columns of the terminal on stderr, if there is one.
pub(crate) fn columns() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is a live local.
    let status = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (status == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// The terminal on stdin in raw mode; restored when dropped.
pub(crate) struct RawMode {
    before: libc::termios,
}

impl RawMode {
    /// Switches stdin to raw mode; nothing when it is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        // SAFETY: a zeroed `termios` is valid memory for `tcgetattr` to fill; it is used only if
        // the call succeeded. `cfmakeraw` and `tcsetattr` get that same initialised value.
        unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(libc::STDIN_FILENO, &raw mut before) != 0 {
                return None;
            }
            let mut raw = before;
            libc::cfmakeraw(&raw mut raw);
            (libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const raw) == 0)
                .then_some(Self { before })
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by `tcgetattr`.
        unsafe {
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const self.before);
        }
    }
}

/// What stdin has for us.
pub(crate) enum Input {
    /// Nothing within the time given.
    None,
    /// Bytes.
    Bytes(Vec<u8>),
    /// Its end.
    End,
}

/// Waits up to `timeout` for input on stdin.
pub(crate) fn read_stdin(timeout: std::time::Duration) -> Input {
    let mut poll = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `poll` is one valid pollfd, and its count is given as 1.
    if unsafe { libc::poll(&raw mut poll, 1, millis) } <= 0 {
        return Input::None;
    }
    let mut buffer = [0u8; 4096];
    // SAFETY: at most `buffer.len()` bytes are written to `buffer`.
    let count = unsafe { libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len()) };
    match usize::try_from(count) {
        Ok(0) => Input::End,
        Ok(count) => Input::Bytes(buffer[..count].to_vec()),
        Err(_) => Input::None,
    }
}
