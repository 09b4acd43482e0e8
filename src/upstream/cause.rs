//! How an attempt at a backend failed, in the words that the configuration has for it.

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection: refused, timed out, no address, TLS handshake failed.
    Connect,
    /// The connection broke, or the response was malformed.
    Reset,
    /// The backend took too long.
    Timeout,
    /// A response with this status.
    Status(u16),
}

impl Cause {
    /// The word for log and metric. Statuses are one word each, of the few that a configuration names or 500 and above.
    pub fn word(self) -> String {
        match self {
            Cause::Connect => "connect".to_owned(),
            Cause::Reset => "reset".to_owned(),
            Cause::Timeout => "timeout".to_owned(),
            Cause::Status(status) => status.to_string(),
        }
    }
}

/// A set of causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct On {
    /// [`Cause::Connect`].
    pub connect: bool,
    /// [`Cause::Reset`].
    pub reset: bool,
    /// [`Cause::Timeout`].
    pub timeout: bool,
    /// Every status from 500 on.
    pub server_errors: bool,
    /// Further statuses.
    pub statuses: Vec<u16>,
}

impl On {
    /// Reads words of the configuration; those it does not know are left out, as they were reported.
    pub fn of(words: &[String]) -> On {
        let mut on = On::default();
        for word in words {
            match word.as_str() {
                "connect" => on.connect = true,
                "reset" => on.reset = true,
                "timeout" => on.timeout = true,
                "5xx" => on.server_errors = true,
                status => on.statuses.extend(status.parse::<u16>()),
            }
        }
        on
    }

    /// Whether it holds this cause.
    pub fn holds(&self, cause: Cause) -> bool {
        match cause {
            Cause::Connect => self.connect,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Status(status) => self.server_errors && status >= 500 || self.statuses.contains(&status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_causes() {
        let on = On::of(&["connect", "5xx", "429"].map(str::to_owned));
        for (cause, held) in [
            (Cause::Connect, true),
            (Cause::Reset, false),
            (Cause::Timeout, false),
            (Cause::Status(500), true),
            (Cause::Status(599), true),
            (Cause::Status(429), true),
            (Cause::Status(404), false),
            (Cause::Status(200), false),
        ] {
            assert_eq!(on.holds(cause), held, "{cause:?}");
        }
    }
}
