//! Secret values, and values that are encrypted in the file (goma-core §1.6).
//!
//! An encrypted value is an armored OpenPGP message for a passphrase, as `gpg --symmetric --armor` writes it. It may
//! stand for the whole `rule` of a middleware, for certificates and keys. It is opened in the tree, before anything is
//! decoded, so that nobody behind this page meets one.

use std::fmt;
use std::io::Read;
use std::ops::Deref;

use pgp::composed::{DecryptionOptions, Message, TheRing};
use pgp::types::Password;
use serde::Deserialize;

use super::expand::Env;
use super::node::{Document, Node, Step, Style, Value, key_text};
use super::parse::parse;
use super::problem::{Problem, Severity};

/// The variable that holds the passphrase.
pub const PASSPHRASE: &str = "GOMA_CONFIG_ENCRYPTION_KEY";

/// Plaintext beyond which a message is refused: no setting is that long, but a crafted one could unfold to it.
const MAX_PLAINTEXT: u64 = 4 << 20;

/// A text that never shows itself in a log: `Debug` prints whether it is there.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret(…)" })
    }
}

/// Why an encrypted value stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// There is no passphrase.
    #[error("is encrypted, and there is no passphrase; set {PASSPHRASE}")]
    NoPassphrase,
    /// It is damaged, of a kind we do not read, or the passphrase is wrong: OpenPGP does not tell these apart.
    #[error("cannot be decrypted; check {PASSPHRASE}, and that the message is whole")]
    Closed,
}

/// Whether a text is an encrypted value.
pub fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN PGP MESSAGE-----")
}

/// Opens an encrypted value.
///
/// # Errors
/// [`SealedError`], without a word of what is inside.
pub fn open(text: &str, passphrase: Option<&str>) -> Result<String, SealedError> {
    let passphrase = passphrase.filter(|key| !key.is_empty()).ok_or(SealedError::NoPassphrase)?;
    unseal(text, passphrase).ok_or(SealedError::Closed)
}

fn unseal(text: &str, passphrase: &str) -> Option<String> {
    let password = Password::from(passphrase);
    let armored = text.trim();
    let (message, _) = Message::from_string(armored).ok()?;
    // Newer GnuPG writes its own authenticated form.
    let ring = TheRing {
        message_password: vec![&password],
        decrypt_options: DecryptionOptions::new().enable_gnupg_aead(),
        ..TheRing::default()
    };
    let (mut message, _) = message.decrypt_the_ring(ring, true).ok()?;
    if message.is_compressed() {
        message = message.decompress().ok()?;
    }
    let mut plain = Vec::new();
    // Reading to the end is what checks that nothing was changed.
    (&mut message).take(MAX_PLAINTEXT + 1).read_to_end(&mut plain).ok()?;
    if plain.len() as u64 > MAX_PLAINTEXT {
        return None;
    }
    String::from_utf8(plain).ok()
}

/// Opens every encrypted value of a document that may be one; what cannot be opened is a finding.
pub fn unseal_document(document: &mut Document, env: &Env) -> Vec<Problem> {
    let mut opener = Opener { env, file: document.file.clone(), problems: Vec::new() };
    let root = &mut document.root;
    if let Some(gateway) = root.child_mut("gateway") {
        opener.tls(gateway);
        opener.routes(gateway, &[key("gateway"), key("routes")]);
    }
    opener.routes(root, &[key("routes")]);
    for (index, middleware) in items(root, "middlewares") {
        if let Some(rule) = middleware.child_mut("rule") {
            opener.rule(rule, &[key("middlewares"), Step::Index(index), key("rule")]);
        }
    }
    opener.problems
}

struct Opener<'a> {
    env: &'a Env,
    file: String,
    problems: Vec<Problem>,
}

impl Opener<'_> {
    fn tls(&mut self, gateway: &mut Node) {
        let Some(tls) = gateway.child_mut("tls") else { return };
        let at = [key("gateway"), key("tls")];
        if let Some(pair) = tls.child_mut("default") {
            self.pair(pair, &below(&at, [key("default")]));
        }
        for list in ["certificates", "keys"] {
            for (index, pair) in items(tls, list) {
                self.pair(pair, &below(&at, [key(list), Step::Index(index)]));
            }
        }
        if let Some(authority) = tls.child_mut("clientAuth").and_then(|auth| auth.child_mut("clientCA")) {
            self.text(authority, &below(&at, [key("clientAuth"), key("clientCA")]));
        }
    }

    fn routes(&mut self, holder: &mut Node, steps: &[Step]) {
        for (index, route) in items(holder, "routes") {
            if let Some(pair) = route.child_mut("tls").and_then(|tls| tls.child_mut("certificate")) {
                let at = below(steps, [Step::Index(index), key("tls"), key("certificate")]);
                self.pair(pair, &at);
            }
        }
    }

    fn pair(&mut self, pair: &mut Node, at: &[Step]) {
        for name in ["cert", "key"] {
            if let Some(node) = pair.child_mut(name) {
                self.text(node, &below(at, [key(name)]));
            }
        }
    }

    fn text(&mut self, node: &mut Node, at: &[Step]) {
        if let Some(plain) = self.open(node, at) {
            *node = node.with_text(&plain, Style::Sealed);
        }
    }

    fn rule(&mut self, node: &mut Node, at: &[Step]) {
        let Some(plain) = self.open(node, at) else { return };
        let (inner, problems) = parse(&self.file, &plain);
        if problems.is_empty() {
            let line = node.line;
            *node = inner.root;
            seal(node, line);
        } else {
            // What the parser says may quote the secret.
            self.problem(node, at, "holds, decrypted, no valid YAML", "");
        }
    }

    fn open(&mut self, node: &Node, at: &[Step]) -> Option<String> {
        let text = node.scalar().map(|scalar| scalar.text.as_str()).filter(|text| is_sealed(text))?;
        let opened = open(text, self.env.get(PASSPHRASE));
        opened
            .map_err(|error| {
                let sentence = error.to_string();
                let (message, remedy) = sentence.split_once("; ").unwrap_or((&sentence, ""));
                self.problem(node, at, message, remedy);
            })
            .ok()
    }

    fn problem(&mut self, node: &Node, at: &[Step], message: &str, remedy: &str) {
        self.problems.push(Problem {
            severity: Severity::Error,
            file: self.file.clone(),
            key: key_text(at),
            line: Some(node.line),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

fn below<const N: usize>(at: &[Step], steps: [Step; N]) -> Vec<Step> {
    at.iter().cloned().chain(steps).collect()
}

fn items<'a>(holder: &'a mut Node, list: &str) -> impl Iterator<Item = (usize, &'a mut Node)> {
    holder.child_mut(list).map(Node::items_mut).unwrap_or_default().iter_mut().enumerate()
}

/// Marks all scalars as secret and gives everything the line of the message it came from.
fn seal(node: &mut Node, line: u32) {
    node.line = line;
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => scalar.style = Style::Sealed,
        Value::List(items) => items.iter_mut().for_each(|item| seal(item, line)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.line = line;
            seal(&mut entry.node, line);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `statusCode: 404`, as `gpg --symmetric --armor` writes it (compressed).
    const RULE: &str = "-----BEGIN PGP MESSAGE-----

jA0ECQMC8paUd1kiQYtg0kUBe69a7PCVuKdUu1lwlUFDPeyFDdxb3ePlw1ChvxSH
di4rhfJE17MwdqBqqQCcq/gCGnEvihbeBo86HKoB+nb3vACzHhU=
=tTsg
-----END PGP MESSAGE-----";
    /// `top secret key`, not compressed.
    const PLAIN: &str = "-----BEGIN PGP MESSAGE-----

jA0ECQMCOemsVZprOtxg0j8B7MmbSs7zx9rOH96GXYMf/i88dFfk11y4XHJe2eah
zOZO1KDHiK7h9CHtVQXwKXfdntmJgOTRgpc92siSSyM=
=4rsX
-----END PGP MESSAGE-----";
    /// `statusCode: 404`, with `--compress-algo bzip2`.
    const BZIP2: &str = "-----BEGIN PGP MESSAGE-----

jA0ECQMC5rCTGbnFf0n/0ngBJXmWrGNKly4FtSZX8wiDsENAwnd1i0Sl9TA5PRWp
/C9kxjbSmQABI5Ko3/ilCSciBunP/kOAVxWdhsgERFZsDhVXPGp/Mkn45QCj0CJm
VlFOS/vlV5VKneAjb0wxDOAkvT7zSkMMkafOB+IByJkl6RxjqutYFi0=
=MijK
-----END PGP MESSAGE-----";
    const KEY: &str = "correct horse";

    fn indented(text: &str) -> String {
        text.lines().map(|line| format!("      {line}\n")).collect()
    }

    fn unsealed(yaml: &str, passphrase: &str) -> (Document, Vec<String>) {
        let (mut document, problems) = parse("t.yml", yaml);
        assert_eq!(problems, []);
        let env = [(PASSPHRASE, passphrase)].into_iter().collect();
        let problems = unseal_document(&mut document, &env);
        (document, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_gnupg_encrypts_is_opened_with_the_passphrase_only() {
        let cut = PLAIN.replace("AO5h", "");
        let damaged = RULE.replacen("jA0E", "jA0F", 1);
        let table = [
            ("a compressed message", RULE, Some(KEY), Ok("statusCode: 404\n")),
            ("one compressed with bzip2", BZIP2, Some(KEY), Ok("statusCode: 404\n")),
            ("an uncompressed one", PLAIN, Some(KEY), Ok("top secret key")),
            ("the wrong passphrase", RULE, Some("wrong"), Err(SealedError::Closed)),
            ("no passphrase", RULE, None, Err(SealedError::NoPassphrase)),
            ("an empty passphrase", RULE, Some(""), Err(SealedError::NoPassphrase)),
            ("a damaged message", &damaged, Some(KEY), Err(SealedError::Closed)),
            ("a message cut short", &cut[..cut.len() - 40], Some(KEY), Err(SealedError::Closed)),
        ];
        for (what, text, passphrase, opened) in table {
            assert_eq!(open(text, passphrase), opened.map(str::to_owned), "{what}");
        }
    }

    #[test]
    fn a_changed_message_is_not_believed() {
        for (at, letter) in PLAIN.char_indices().skip(30).filter(|(_, letter)| letter.is_ascii_alphanumeric()) {
            let other = if letter == 'A' { 'B' } else { 'A' };
            let changed = format!("{}{other}{}", &PLAIN[..at], &PLAIN[at + 1..]);
            if let Ok(text) = open(&changed, Some(KEY)) {
                assert_eq!(text, "top secret key", "letter {at}");
            }
        }
    }

    #[test]
    fn encrypted_values_are_opened_where_they_may_stand() {
        let sealed = indented(PLAIN);
        let yaml = format!(
            "gateway:\n  tls:\n    default:\n     key: |\n{sealed}    clientAuth:\n     clientCA: |\n{sealed}  routes:\n  - tls:\n     \
             certificate:\n      key: |\n{}middlewares:\n- rule: |\n{}",
            indented(PLAIN).replace("      ", "        "),
            indented(RULE)
        );
        let (document, problems) = unsealed(&yaml, KEY);
        assert_eq!(problems, [""; 0]);
        let text = |node: Option<&Node>| node.and_then(Node::scalar).map(|scalar| scalar.text.clone());
        let gateway = document.root.child("gateway").unwrap();
        let tls = gateway.child("tls").unwrap();
        let secret = Some("top secret key".to_owned());
        assert_eq!(text(tls.child("default").unwrap().child("key")), secret);
        assert_eq!(text(tls.child("clientAuth").unwrap().child("clientCA")), secret);
        let route = &gateway.child("routes").unwrap().items()[0];
        assert_eq!(text(route.child("tls").unwrap().child("certificate").unwrap().child("key")), secret);
        let rule = document.root.child("middlewares").unwrap().items()[0].child("rule").unwrap();
        assert_eq!(text(rule.child("statusCode")), Some("404".to_owned()));
    }

    #[test]
    fn a_message_that_stays_closed_is_named_without_its_content() {
        let yaml = format!("middlewares:\n- rule: |\n{}", indented(RULE));
        let (_, problems) = unsealed(&yaml, "wrong");
        let line = "error: t.yml:2: middlewares[0].rule: cannot be decrypted; \
                    check GOMA_CONFIG_ENCRYPTION_KEY, and that the message is whole";
        assert_eq!(problems, [line]);
        let (_, problems) = unsealed(&yaml, "");
        let line = "error: t.yml:2: middlewares[0].rule: is encrypted, and there is no passphrase; \
                    set GOMA_CONFIG_ENCRYPTION_KEY";
        assert_eq!(problems, [line]);
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(…)");
    }
}
