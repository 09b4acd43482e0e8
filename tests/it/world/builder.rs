//! How a gateway is set up: its configuration in parts, files beside it, variables, and words that stand for addresses.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::Path;
use std::pin::Pin;

use super::cli::{self, Output};
use super::gateway::Gateway;
use super::{eventually, place, upgrade};

/// A gateway to be started; awaiting it starts it and waits until it is ready.
#[derive(Default)]
pub struct Builder {
    words: Words,
    config: Option<String>,
    gateway: String,
    routes: String,
    middlewares: String,
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    swappable: bool,
    activated: bool,
}

impl Builder {
    /// The configuration says this word for that.
    pub fn word(mut self, word: &str, means: &impl fmt::Display) -> Builder {
        self.words.0.push((word.to_owned(), means.to_string()));
        self
    }

    /// The whole of `goma.yml`; wins over the parts below.
    pub fn config(self, text: &str) -> Builder {
        Builder { config: Some(text.to_owned()), ..self }
    }

    /// Keys of `gateway:` beside its routes, a line each.
    pub fn gateway(self, keys: &str) -> Builder {
        Builder { gateway: keys.to_owned(), ..self }
    }

    /// List items of `gateway.routes`.
    pub fn routes(self, items: &str) -> Builder {
        Builder { routes: items.to_owned(), ..self }
    }

    /// List items of `middlewares`.
    pub fn middlewares(self, items: &str) -> Builder {
        Builder { middlewares: items.to_owned(), ..self }
    }

    /// A file beside `goma.yml`; the word `FOLDER` in any text means the folder.
    pub fn file(mut self, name: &str, text: &str) -> Builder {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its program can be swapped, see [`Gateway::upgrade`].
    pub fn swappable(self) -> Builder {
        Builder { swappable: true, ..self }
    }

    /// Its socket is opened by another program, as a service manager does.
    pub fn activated(self) -> Builder {
        Builder { activated: true, ..self }
    }

    pub async fn start(self) -> Gateway {
        let gateway = self.spawn();
        eventually("the gateway is ready", async || {
            if let Some(status) = gateway.exited() {
                panic!("the gateway did not start ({status})");
            }
            // What has no readiness endpoint is ready when it listens.
            let reply = gateway.get("/readyz").attempt().await.ok()?;
            (reply.status != 503).then_some(())
        })
        .await;
        gateway
    }

    /// Starts it and waits until it gives up.
    pub async fn start_fails(self) -> Output {
        self.spawn().end().await
    }

    fn spawn(mut self) -> Gateway {
        let folder = tempfile::Builder::new().prefix("goma-").tempdir().expect("a temporary folder");
        self.words.0.push(("FOLDER".to_owned(), folder.path().display().to_string()));
        let config = self.config.unwrap_or_else(|| document(&self.gateway, &self.routes, &self.middlewares));
        self.files.push(("goma.yml".to_owned(), config));
        for (name, text) in &self.files {
            self.words.write(&folder.path().join(name), text);
        }
        let port = place::free_port();
        let mut command = cli::binary();
        if self.swappable {
            upgrade::link(folder.path());
            command = cli::by_name(&folder.path().join(upgrade::PROGRAM));
        }
        // Variables win over the file, so that any file at all can be started here.
        let secure = place::free_port();
        let mut env = vec![
            ("GOMA_ENTRYPOINT_WEB_ADDRESS".to_owned(), format!("127.0.0.1:{port}")),
            ("GOMA_ENTRYPOINT_WEB_SECURE_ADDRESS".to_owned(), format!("127.0.0.1:{secure}")),
            ("GOMA_ENABLE_METRICS".to_owned(), "true".to_owned()),
            ("GOMA_LOG_LEVEL".to_owned(), "warn".to_owned()),
        ];
        env.extend(self.env);
        if self.activated {
            // Hands its own variables to nobody.
            let program = command.get_program().to_owned();
            command = cli::by_name(Path::new("systemd-socket-activate"));
            command.args(["-l", &format!("127.0.0.1:{port}"), "-l", &format!("127.0.0.1:{secure}")]);
            command.arg("--fdname=web:webSecure");
            command.args(env.iter().map(|(name, value)| format!("--setenv={name}={value}"))).arg("--").arg(program);
        }
        command.current_dir(folder.path()).args(["server", "-c", "goma.yml"]).envs(env);
        Gateway::of(command.spawn().expect("the binary starts"), (port, secure), folder, self.words)
    }
}

impl IntoFuture for Builder {
    type Output = Gateway;
    type IntoFuture = Pin<Box<dyn Future<Output = Gateway>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// Words of a configuration and what they stand for.
#[derive(Default)]
pub(super) struct Words(Vec<(String, String)>);

impl Words {
    /// Writes a file, with the words replaced; later words first, so that a text may bring in an earlier one.
    pub(super) fn write(&self, path: &Path, text: &str) {
        let text = self.0.iter().rev().fold(text.to_owned(), |text, (word, means)| text.replace(word, means));
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("a writable folder");
        std::fs::write(path, text).expect("a writable file");
    }
}

/// A configuration of these parts.
pub fn document(gateway: &str, routes: &str, middlewares: &str) -> String {
    let list = |key: &str, items: &str, by: usize| match items.trim() {
        "" => String::new(),
        items => format!("{:by$}{key}:\n{}", "", indent(items, by + 2)),
    };
    format!(
        "version: 2\ngateway:\n{}{}{}",
        indent(gateway, 2),
        list("routes", routes, 2),
        list("middlewares", middlewares, 0)
    )
}

fn indent(text: &str, by: usize) -> String {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{:by$}{line}\n", "")).collect()
}
