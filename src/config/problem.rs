//! What is wrong with a configuration: file, line, key, sentence, remedy.
//!
//! ```text
//! error: goma.yml:12: gateway.routes[2].target: ends with "/"; remove the trailing slash
//! ```

use std::fmt;

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is used; `config check --strict` refuses it.
    Warning,
}

/// One finding, made for the operator's eyes. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Refuses the configuration, or not.
    pub severity: Severity,
    /// The file as it was named, or `environment`; empty when no file is meant.
    pub file: String,
    /// Path of the key, like `gateway.routes[2].target`; empty for the file as a whole.
    pub key: String,
    /// Line in the file, from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

impl Problem {
    /// An error about a file as a whole.
    pub fn in_file(file: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: file.into(),
            key: String::new(),
            line: None,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// A warning about an environment variable.
    pub fn in_environment(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Warning,
            key: name.to_owned(),
            ..Problem::in_file("environment", message, remedy)
        }
    }

    /// The same finding as a warning.
    #[must_use]
    pub fn as_warning(self) -> Problem {
        Problem { severity: Severity::Warning, ..self }
    }

    /// Whether it refuses the configuration.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, None) => write!(out, "{file}: ")?,
            (file, Some(line)) => write!(out, "{file}:{line}: ")?,
        }
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(out, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All findings of one load. Its `Display` prints one line each, errors first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Each refuses the configuration.
    pub errors: Vec<Problem>,
    /// None refuses the configuration.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Puts the findings of each file in the order of its lines.
    pub fn sort(&mut self) {
        for problems in [&mut self.errors, &mut self.warnings] {
            problems.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        }
    }

    /// Files a finding under its severity.
    pub fn add(&mut self, problem: Problem) {
        if problem.is_error() {
            self.errors.push(problem);
        } else {
            self.warnings.push(problem);
        }
    }
}

impl Extend<Problem> for Report {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        problems.into_iter().for_each(|problem| self.add(problem));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.errors.iter().chain(&self.warnings);
        if let Some(first) = lines.next() {
            write!(out, "{first}")?;
        }
        lines.try_for_each(|problem| write!(out, "\n{problem}"))
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line_with_everything_that_is_known() {
        let full = Problem {
            severity: Severity::Error,
            file: "goma.yml".into(),
            key: "gateway.routes[2].target".into(),
            line: Some(12),
            message: "ends with \"/\"".into(),
            remedy: "remove the trailing slash".into(),
        };
        let table = [
            (
                "all parts",
                full.clone(),
                "error: goma.yml:12: gateway.routes[2].target: ends with \"/\"; remove the trailing slash",
            ),
            (
                "a warning without line and remedy",
                Problem { line: None, remedy: String::new(), ..full.clone() }.as_warning(),
                "warning: goma.yml: gateway.routes[2].target: ends with \"/\"",
            ),
            ("the file as a whole", Problem::in_file("a.yml", "is not UTF-8", ""), "error: a.yml: is not UTF-8"),
            (
                "a variable",
                Problem::in_environment("GOMA_TIMEOUT_READ", "is not a number", "the value of the file is used"),
                "warning: environment: GOMA_TIMEOUT_READ: is not a number; the value of the file is used",
            ),
        ];
        for (what, problem, text) in table {
            assert_eq!(problem.to_string(), text, "{what}");
        }
    }
}
