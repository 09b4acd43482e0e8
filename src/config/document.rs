//! The documents: the whole configuration, and the tops of the files it is read from (goma-core §2, §8).

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::certs::CertManager;
use super::expand::Env;
use super::gateway::Gateway;
use super::middleware::Middleware;
use super::place::Place;
use super::problem::Problem;
use super::route::Route;

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file that was named; none for `GOMA_CONFIG_FILE`, or else [`super::DEFAULT_FILE`].
    pub path: Option<PathBuf>,
    /// The environment.
    pub env: Env,
}

/// A configuration that may be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What its author should know.
    pub warnings: Vec<Problem>,
    /// What to look at for changes.
    pub watched: Watched,
}

/// The files a configuration was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// The main file.
    pub main: PathBuf,
    /// The folder of extra files.
    pub extra: Option<Watch>,
    /// The folder of the file provider.
    pub provider: Option<Watch>,
}

/// A folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Its path.
    pub directory: PathBuf,
    /// Whether a change in it is to reload.
    pub watch: bool,
}

/// The whole configuration: plain data, every default filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Version of the format; never checked.
    pub version: String,
    /// What holds for the whole process.
    pub gateway: Gateway,
    /// All routes: main file, extra files, file provider.
    pub routes: Vec<Route>,
    /// All middlewares, in the same order.
    pub middlewares: Vec<Middleware>,
    /// Who issues certificates.
    pub cert_manager: CertManager,
    /// Go plugins, which cannot be run here.
    pub plugins: Plugins,
    /// The top of the main file.
    pub at: Place,
}

/// The `plugins` section: its keys are accepted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Plugins {
    /// Folder of Go plugins.
    pub path: String,
    remotes: IgnoredAny,
}

/// The top of the main file; what is ignored here is read apart.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Main {
    pub(super) version: String,
    #[serde(rename = "gateway")]
    _gateway: IgnoredAny,
    #[serde(rename = "middlewares")]
    _middlewares: IgnoredAny,
    #[serde(rename = "routes")]
    _routes: IgnoredAny,
    pub(super) cert_manager: CertManager,
    pub(super) plugins: Plugins,
}

/// The top of an extra file or a provider's document.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Part {
    #[serde(rename = "version")]
    _version: IgnoredAny,
    #[serde(rename = "routes")]
    _routes: IgnoredAny,
    #[serde(rename = "middlewares")]
    _middlewares: IgnoredAny,
    #[serde(rename = "gateway")]
    _gateway: IgnoredAny,
    #[serde(rename = "certManager")]
    _cert_manager: IgnoredAny,
    #[serde(rename = "plugins")]
    _plugins: IgnoredAny,
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(rename = "checksum")]
    _checksum: IgnoredAny,
    #[serde(rename = "timestamp")]
    _timestamp: IgnoredAny,
}
