//! Deadlines that passed, told in a way that survives the journey through Pingora's errors.

use std::io;

use pingora_error::Error;

/// A deadline of a request that passed, by who was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    /// The client, which did not send all of its body.
    #[error("the client takes too long to send its request")]
    Request,
    /// The client, which did not take the response.
    #[error("the client takes too long to read the response")]
    Reading,
    /// The client, whose request still goes on after its response has ended.
    #[error("the rest of the request comes after its response")]
    Leftover,
    /// A backend, which did not give all of its response.
    #[error("the response takes too long")]
    Response,
}

impl Overdue {
    /// The deadline behind an error, if there is one.
    pub fn of(error: &Error) -> Option<Overdue> {
        let cause = error.root_cause().downcast_ref::<io::Error>()?;
        cause.get_ref()?.downcast_ref().copied()
    }
}

impl From<Overdue> for io::Error {
    fn from(overdue: Overdue) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, overdue)
    }
}

#[cfg(test)]
mod tests {
    use pingora_error::ErrorType;

    use super::*;

    #[test]
    fn a_deadline_is_found_behind_wrapped_errors() {
        let inner = Error::because(ErrorType::ReadError, "reading a body", io::Error::from(Overdue::Request));
        let outer = Error::because(ErrorType::InternalError, "proxying", inner);
        assert_eq!(Overdue::of(&outer), Some(Overdue::Request));
        let other = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(Overdue::of(&Error::because(ErrorType::ReadError, "reading a body", other)), None);
        assert_eq!(Overdue::of(&Error::explain(ErrorType::ReadTimedout, "no cause")), None);
    }
}
