//! Files that routes and middlewares are compiled from: what we show to backends, and whom we believe.
//!
//! What they hold is no part of the configuration's text; [`digest`] tells whether it has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config::{Config, material_file};
use crate::middleware::Settings;
use crate::middleware::ldap::Ldap;

/// The files, each once: keys and certificates of `security.tls` of routes, `rootCAs` of directories.
pub fn files(config: &Config) -> BTreeSet<PathBuf> {
    let backends = config.routes.iter().flat_map(|route| {
        let tls = &route.security.tls;
        [tls.root_cas.as_str(), &tls.client_cert, tls.client_key.as_str()]
    });
    let mut files: BTreeSet<PathBuf> = backends.filter_map(material_file).map(Path::to_owned).collect();
    for directory in config.middlewares.iter().filter(|middleware| Ldap::KIND.contains(&middleware.kind.as_str())) {
        // What is wrong with it is told when it is compiled.
        let Ok((authorities, _)) = directory.rule.decode::<Authorities>(false) else { continue };
        files.extend(material_file(&authorities.root_cas).map(Path::to_owned));
    }
    files
}

/// Of all that [`files`] hold now. What cannot be read counts as well.
pub fn digest(config: &Config) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files(config) {
        let content = std::fs::read(&file).ok();
        hash.update(content.as_ref().map_or(u64::MAX, |content| content.len() as u64).to_le_bytes());
        hash.update(content.unwrap_or_default());
    }
    hash.finalize().into()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Authorities {
    #[serde(rename = "rootCAs")]
    root_cas: String,
}
