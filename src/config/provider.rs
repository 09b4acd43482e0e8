//! `gateway.extraConfig` and `gateway.providers`: where routes and middlewares come from besides the main file
//! (goma-core §8.2, §8.3).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::secret::Secret;
use super::units;

/// A folder of files with routes and middlewares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Directory {
    /// Its path; empty for none.
    pub directory: String,
    /// Reload when something in it changes. Default false.
    pub watch: bool,
}

/// The providers; those that are absent do not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Providers {
    /// A folder of documents.
    pub file: Option<FileProvider>,
    /// A document behind a URL.
    pub http: Option<HttpProvider>,
    /// A repository of documents.
    pub git: Option<GitProvider>,
}

/// A folder of documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FileProvider {
    /// Default false.
    pub enabled: bool,
    /// Its path.
    pub directory: String,
    /// Reload when something in it changes. Default false.
    pub watch: bool,
}

/// A document behind a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpProvider {
    /// Default false.
    pub enabled: bool,
    /// Its URL.
    pub endpoint: String,
    /// Time between two looks, Go duration. Default 30 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub interval: Duration,
    /// Deadline of one look, Go duration. Default 10 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub timeout: Duration,
    /// Tries beyond the first. Default 3.
    pub retry_attempts: u32,
    /// Pause between tries, Go duration. Default 2 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub retry_delay: Duration,
    /// Sent along; variables in the values are expanded.
    pub headers: BTreeMap<String, Secret>,
    /// Do not check the server's certificate. Default false.
    pub insecure_skip_verify: bool,
    /// File in which the last good document is kept; empty for one in the system's temporary folder.
    pub cache_dir: String,
}

impl Default for HttpProvider {
    fn default() -> HttpProvider {
        HttpProvider {
            enabled: false,
            endpoint: String::new(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            retry_attempts: 3,
            retry_delay: Duration::from_secs(2),
            headers: BTreeMap::new(),
            insecure_skip_verify: false,
            cache_dir: String::new(),
        }
    }
}

/// A repository of documents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GitProvider {
    /// Default false.
    pub enabled: bool,
    /// The repository.
    pub url: String,
    /// Default `main`.
    pub branch: String,
    /// Folder inside the repository; empty for its root.
    pub path: String,
    /// Time between two looks, Go duration. Default 120 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub interval: Duration,
    /// Where the copy lives; empty for a folder in the system's temporary one.
    pub clone_dir: String,
    /// How we show who we are.
    pub auth: GitAuth,
}

impl Default for GitProvider {
    fn default() -> GitProvider {
        GitProvider {
            enabled: false,
            url: String::new(),
            branch: "main".to_owned(),
            path: String::new(),
            interval: Duration::from_secs(120),
            clone_dir: String::new(),
            auth: GitAuth::default(),
        }
    }
}

/// How we show a Git server who we are. Variables in the secrets are expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GitAuth {
    /// `token`, `basic`, `ssh`; empty for none.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `token`.
    pub token: Secret,
    /// For `basic`.
    pub username: String,
    /// For `basic`.
    pub password: Secret,
    /// For `ssh`: path of the key.
    pub ssh_key_path: String,
    /// For `ssh`: the key itself, base64.
    pub ssh_key_data: Secret,
}
