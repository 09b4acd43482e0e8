//! Why one value could not be decoded, in sentences for operators: the error type of `lenient.rs`.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::nearest::nearest;
use super::node::{Node, Step};

/// A decoding error. Where it happened is filled in on the way up.
#[derive(Debug)]
pub struct Fault {
    pub message: String,
    pub remedy: String,
    pub at: Option<At>,
}

/// The value that is at fault.
#[derive(Debug)]
pub struct At {
    /// Steps below the node where decoding began.
    pub steps: Vec<Step>,
    /// The node itself.
    pub node: *const Node,
}

impl Fault {
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { message: message.into(), remedy: remedy.into(), at: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    /// A message of the form `what is wrong; what to do` is taken apart at the semicolon.
    fn custom<T: fmt::Display>(message: T) -> Fault {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((message, remedy)) => Fault::new(message, remedy),
            None => Fault::new(message, ""),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(format!("expected {expected}, found {found}"), "")
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(format!("expected {expected}, found {found}"), "")
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Fault {
        let remedy = match nearest(variant, expected) {
            Some((near, _)) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", expected.join(", ")),
        };
        Fault::new(format!("\"{variant}\" is not a known value"), remedy)
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::new(format!("\"{field}\" is missing"), "")
    }

    fn duplicate_field(field: &'static str) -> Fault {
        Fault::new(format!("\"{field}\" is given twice, in different spellings"), "remove one of them")
    }
}
