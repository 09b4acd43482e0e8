//! Variables and functions in the text of a file (goma-core §1.5).
//!
//! `${NAME}` and the bare `{NAME}` become the value of the variable if there is one, and stay as they are otherwise.
//! Functions such as `{{uuid()}}` are filled in before. This happens on the text, before YAML sees it, as in Goma: a
//! value may hold any YAML.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::distr::Alphanumeric;

use super::moment;
use super::problem::Problem;

/// The environment: variables by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Env(Arc<BTreeMap<String, String>>);

impl Env {
    /// The variables of this process that are valid UTF-8.
    pub fn of_process() -> Env {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable; an empty value is a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Env {
        Env(Arc::new(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

/// Names may be secret by themselves, values often are: only the count is shown.
impl std::fmt::Debug for Env {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Env({} variables)", self.0.len())
    }
}

/// Expands the text of a file. Every bare `{NAME}` that was replaced is a warning, as it may be a path's placeholder; so is
/// a `${NAME}` that stays, since its text is rarely what was meant.
pub fn file(name: &str, text: &str, env: &Env) -> (String, Vec<Problem>) {
    let mut problems = Vec::new();
    let text = functions(text);
    let expanded = variables(&text, env, |variable, oddity, offset| {
        let (message, remedy) = match oddity {
            Oddity::Bare => (
                format!("{{{variable}}} was replaced by the environment variable of that name"),
                format!("write ${{{variable}}} where the variable is meant, or unset it"),
            ),
            _ if is_remark(&text, offset) => return,
            Oddity::Unset => (
                format!("${{{variable}}} stays as it is: there is no environment variable of that name"),
                format!("set {variable} where the gateway starts"),
            ),
            Oddity::Default => (
                format!("${{{variable}…}} stays as it is: variables have no defaults"),
                format!("write ${{{variable}}}, and set {variable} where the gateway starts"),
            ),
        };
        let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        let problem = Problem::in_file(name, message, remedy).as_warning();
        problems.push(Problem { line: u32::try_from(line).ok(), ..problem });
    });
    (expanded, problems)
}

/// Expands one value a second time, where the setting says so.
pub fn value(text: &str, env: &Env) -> String {
    variables(&functions(text), env, |_, _, _| {})
}

/// What may be a mistake about a variable.
enum Oddity {
    /// `{NAME}` without a dollar was replaced.
    Bare,
    /// `${NAME}` is not set.
    Unset,
    /// `${NAME:-text}` and the like, as shells have it.
    Default,
}

/// Whether braces stand for something else there: in a comment, or in the replacement of a regular expression, where they
/// name a group.
fn is_remark(text: &str, offset: usize) -> bool {
    let start = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    let before = text[start..offset].trim_start();
    before.starts_with('#') || before.contains(" #") || before.contains("eplacement")
}

fn variables(text: &str, env: &Env, mut on_oddity: impl FnMut(&str, Oddity, usize)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(brace) = rest.find('{') {
        let name = &rest[brace + 1..];
        let end = name.find(|at: char| at != '_' && !at.is_ascii_alphanumeric()).unwrap_or(name.len());
        let named = end > 0 && !name.starts_with(|first: char| first.is_ascii_digit());
        let closed = named && name[end..].starts_with('}');
        let found = if closed { env.get(&name[..end]) } else { None };
        let offset = text.len() - rest.len() + brace;
        match found {
            Some(value) => {
                let before = &rest[..brace];
                if let Some(before) = before.strip_suffix('$') {
                    out.push_str(before);
                } else {
                    out.push_str(before);
                    on_oddity(&name[..end], Oddity::Bare, offset);
                }
                out.push_str(value);
                rest = &name[end + 1..];
            }
            None => {
                let named = named && rest[..brace].ends_with('$');
                if named && closed {
                    on_oddity(&name[..end], Oddity::Unset, offset);
                } else if named && name[end..].starts_with([':', '-', '?']) {
                    on_oddity(&name[..end], Oddity::Default, offset);
                }
                out.push_str(&rest[..=brace]);
                rest = name;
            }
        }
    }
    out.push_str(rest);
    out
}

fn functions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let call = &rest[open + 2..];
        out.push_str(&rest[..open]);
        // A call stands on one line.
        let line = call.split('\n').next().unwrap_or_default();
        match line.find("}}").and_then(|end| Some((result(&call[..end])?, end))) {
            Some((result, end)) => {
                out.push_str(&result);
                rest = &call[end + 2..];
            }
            None => {
                out.push('{');
                rest = &rest[open + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What a call such as `randomHex(8)` gives; nothing for an unknown function or a bad argument.
fn result(call: &str) -> Option<String> {
    let (name, argument) = call.trim().strip_suffix(')')?.split_once('(')?;
    let argument = argument.trim();
    let now = chrono::Local::now().fixed_offset();
    match (name.trim().to_ascii_lowercase().as_str(), argument) {
        ("uuid", "") => Some(uuid()),
        ("timestamp", "") => Some(now.timestamp().to_string()),
        ("timestampms", "") => Some(now.timestamp_millis().to_string()),
        ("now", "") => Some(moment::format(&now, "rfc3339")),
        ("date", layout) => Some(moment::format(&now, layout.trim_matches(['"', '\'']))),
        ("randomstring", count) => {
            let letters = rand::rng().sample_iter(Alphanumeric).map(char::from);
            Some(letters.take(length(count)?).collect())
        }
        ("randomhex", count) => {
            let digits = std::iter::repeat_with(|| rand::rng().random_range(0..16u32));
            Some(digits.take(length(count)?).filter_map(|digit| char::from_digit(digit, 16)).collect())
        }
        _ => None,
    }
}

fn length(argument: &str) -> Option<usize> {
    if argument.is_empty() {
        return Some(32);
    }
    argument.parse().ok().filter(|length| (1..=1024).contains(length))
}

fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_where_they_exist() {
        let env: Env = [("P", "secret"), ("EMPTY", ""), ("_x1", "y"), ("id", "7")].into_iter().collect();
        let table = [
            ("with dollar", "password: ${P}", "password: secret", 0),
            ("bare", "password: {P}", "password: secret", 1),
            ("unset", "password: ${Q} {Q}", "password: ${Q} {Q}", 1),
            ("unset in a comment", "a: b # ${Q}\n#${Q}", "a: b # ${Q}\n#${Q}", 0),
            ("a group of an expression", "replacement: /x/${rest}", "replacement: /x/${rest}", 0),
            ("set and empty", "a: '${EMPTY}'", "a: ''", 0),
            ("no dollar form without braces", "a: $P", "a: $P", 0),
            ("a placeholder that is also a variable", "path: /users/{id}", "path: /users/7", 1),
            ("no default syntax", "${P:-x}", "${P:-x}", 1),
            ("a flow map", "a: {P: 1}", "a: {P: 1}", 0),
            ("double braces", "{{P}}", "{secret}", 1),
            ("underscore and digits", "${_x1}", "y", 0),
            ("a name cannot begin with a digit", "${1x}", "${1x}", 0),
            ("what was put in is not expanded again", "${P}{P}", "secretsecret", 1),
            ("not closed", "a ${P", "a ${P", 0),
            ("unknown function", "{{shell(ls)}}", "{{shell(ls)}}", 0),
            ("a bad argument", "{{randomHex(5000)}}", "{{randomHex(5000)}}", 0),
        ];
        for (what, text, expanded, bare) in table {
            let (out, problems) = file("t.yml", text, &env);
            assert_eq!((out.as_str(), problems.len()), (expanded, bare), "{what}");
        }
    }

    #[test]
    fn a_replaced_placeholder_is_named_with_its_line() {
        let env: Env = [("id", "7")].into_iter().collect();
        let (_, problems) = file("t.yml", "a: 1\nb: /users/{id}\n", &env);
        assert_eq!(
            problems[0].to_string(),
            "warning: t.yml:2: {id} was replaced by the environment variable of that name; \
             write ${id} where the variable is meant, or unset it"
        );
    }

    #[test]
    fn a_variable_that_stays_is_named_with_its_line() {
        let (_, problems) = file("t.yml", "a: ${P}\nb: ${Q:-x}\n", &Env::default());
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "warning: t.yml:1: ${P} stays as it is: there is no environment variable of that name; \
                 set P where the gateway starts",
                "warning: t.yml:2: ${Q…} stays as it is: variables have no defaults; \
                 write ${Q}, and set Q where the gateway starts",
            ]
        );
    }

    #[test]
    fn functions_give_fresh_values() {
        let env = Env::default();
        let table = [
            ("{{uuid()}}", 36),
            ("{{UUID()}}", 36),
            ("{{randomString()}}", 32),
            ("{{randomString(8)}}", 8),
            ("{{ randomHex(12) }}", 12),
            ("{{timestamp()}}", 10),
            ("{{timestampMs()}}", 13),
            ("{{date(date)}}", 10),
            ("{{date(2006)}}", 4),
        ];
        for (call, length) in table {
            let out = value(call, &env);
            assert_eq!(out.len(), length, "{call} gave {out}");
        }
        assert_ne!(value("{{uuid()}}", &env), value("{{uuid()}}", &env));
    }
}
