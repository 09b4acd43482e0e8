//! Configurations in a folder of their own, for the tests of this module.

use std::fs;

use tempfile::TempDir;

use super::{Loaded, Problem, Report, Source, load};

/// A folder with `goma.yml` and others; `DIR` in a text stands for the folder.
pub(super) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("DIR", folder.path().to_str().unwrap())).unwrap();
    }
    folder
}

pub(super) fn load_from(folder: &TempDir, variables: &[(&str, &str)]) -> Result<Loaded, Report> {
    load(&Source { path: Some(folder.path().join("goma.yml")), env: variables.iter().copied().collect() })
}

/// The problems as an operator reads them, without the folder.
pub(super) fn lines(problems: &[Problem], folder: &TempDir) -> Vec<String> {
    let prefix = format!("{}/", folder.path().display());
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

/// All that is to say of this `goma.yml`: the errors and, of a sound file, the warnings.
pub(super) fn findings(yaml: &str) -> String {
    let folder = folder(&[("goma.yml", yaml)]);
    let report = match load_from(&folder, &[]) {
        Ok(loaded) => Report { errors: vec![], warnings: loaded.warnings },
        Err(report) => report,
    };
    report.to_string().replace(&format!("{}/", folder.path().display()), "")
}
