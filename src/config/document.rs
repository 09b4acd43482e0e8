//! The documents: the whole configuration, and the tops of the files it is read from (goma-core §2, §8).

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::certs::CertManager;
use super::gateway::Gateway;
use super::middleware::Middleware;
use super::place::Place;
use super::route::Route;

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
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(rename = "checksum")]
    _checksum: IgnoredAny,
    #[serde(rename = "timestamp")]
    _timestamp: IgnoredAny,
}
