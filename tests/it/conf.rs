//! Configurations as operators write them: the good ones load, the bad ones say what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::*;

#[tokio::test]
async fn good_configurations_load() {
    let files = files("tests/conf/good");
    assert!(files.len() >= 10, "at least ten realistic ones");
    for file in files {
        let (output, name) = check(&file).await;
        assert!(output.succeeded(), "{name}: {}", output.all());
    }
}

#[tokio::test]
async fn the_default_and_the_examples_load() {
    for file in ["conf", "conf/examples", "conf/examples/middlewares", "benches/configs"].into_iter().flat_map(files) {
        let text = fs::read_to_string(&file).expect("a readable file");
        let placed = with_its_certificates(&text);
        let file = placed.as_ref().map_or(file, |folder| folder.path().join("goma.yml"));
        let (output, name) = run(&file, &named(&text), &["config", "check", "-c"]).await;
        assert!(output.succeeded(), "{name}: {}", output.all());
    }
}

#[tokio::test]
async fn examples_have_nothing_to_be_warned_of() {
    let examples = files("conf/examples");
    assert!(examples.len() >= 6, "{examples:?}");
    for file in examples {
        let text = fs::read_to_string(&file).expect("a readable file");
        let placed = with_its_certificates(&text);
        let file = placed.as_ref().map_or(file, |folder| folder.path().join("goma.yml"));
        let (folder, name) = (file.parent().expect("a folder"), file.file_name().expect("a name").to_string_lossy());
        let end = goma_in(folder, &named(&text), &["config", "check", "--strict", "-c", &name]).await;
        assert!(end.succeeded(), "{}: {}", file.display(), end.all());
    }
}

#[tokio::test]
async fn the_configuration_for_swarm_loads() {
    let text = fs::read_to_string("conf/swarm/goma.yml").expect("a readable file");
    let placed =
        with_its_certificates(&text.replace("/run/secrets/", "/etc/goma/tls/")).expect("it names certificates");
    let (output, name) = check(&placed.path().join("goma.yml")).await;
    assert!(output.succeeded(), "{name}: {}", output.all());
}

#[tokio::test]
async fn configurations_of_later_features_lack_nothing_but_the_features() {
    for file in files("tests/conf/later") {
        let (output, name) = check(&file).await;
        assert_eq!(output.code, Some(1), "{name}: {}", output.all());
        let errors = errors(&output);
        assert!(!errors.is_empty(), "{name}: {}", output.all());
        for error in errors {
            assert!(error.contains("not supported yet"), "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn bad_configurations_fail_with_the_message_beside_them() {
    let files = files("tests/conf/bad");
    assert!(files.len() >= 30, "at least thirty wrong ones");
    let mut wrong = Vec::new();
    for file in files {
        let (output, name) = check(&file).await;
        let expected =
            fs::read_to_string(file.with_extension("txt")).unwrap_or_else(|_| "no .txt beside it".to_owned());
        let found = problems(&output);
        if output.code != Some(1) || found.trim() != expected.trim() {
            wrong.push(format!("{name} (exit code {:?}):\n{found}expected:\n{expected}", output.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_check_refuses_the_server_refuses_too() {
    for file in files("tests/conf/bad").into_iter().step_by(5) {
        let (output, name) = run(&file, &[], &["server", "-c"]).await;
        assert_eq!(output.code, Some(1), "{name}: {}", output.all());
    }
}

#[tokio::test]
async fn good_configurations_serve() {
    for file in files("tests/conf/good") {
        let text = fs::read_to_string(&file).expect("a readable file");
        // Its own extra files and certificates are not here; what is in the file itself has to run.
        let gateway = Gateway::builder().config(&text).env("GOMA_ENABLE_LIVENESS", "true").await;
        assert!(gateway.accepts().await, "{}", file.display());
    }
}

/// What reads a file would set the variables that it names.
fn named(text: &str) -> Vec<(&str, &'static str)> {
    text.split("${").skip(1).filter_map(|rest| Some((rest.split('}').next()?, "127.0.0.1:9"))).collect()
}

async fn check(file: &Path) -> (Output, String) {
    run(file, &[], &["config", "check", "-c"]).await
}

/// Runs a command on a file in its own folder, so that messages name the bare file.
async fn run(file: &Path, env: &[(&str, &str)], command: &[&str]) -> (Output, String) {
    let folder = file.parent().expect("a file is in a folder");
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    (goma_in(folder, env, &[command, &[name.as_str()]].concat()).await, name)
}

/// A folder with the certificates that a file names and the file itself with their new paths; none for a file without any.
fn with_its_certificates(text: &str) -> Option<tempfile::TempDir> {
    const PLACE: &str = "/etc/goma/tls/";
    let paths: Vec<&str> =
        text.split(PLACE).skip(1).filter_map(|rest| rest.split(['}', ',', ' ', '\n']).next()).collect();
    if paths.is_empty() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a writable folder");
    let mut made = std::collections::HashMap::new();
    for path in paths {
        let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
        let identity = made.entry(stem).or_insert_with(|| Identity::self_signed(&[stem]));
        write(path, if path.ends_with(".key") { &identity.key } else { &identity.certificate });
    }
    let certs = folder.path().join("certs");
    fs::create_dir(&certs).expect("a writable folder");
    let text = text.replace("/etc/goma/certs", &certs.display().to_string());
    write("goma.yml", &text.replace(PLACE, &format!("{}/", folder.path().display())));
    Some(folder)
}

/// The lines about problems, without the summary.
fn problems(output: &Output) -> String {
    let text = output.all();
    let problems = text.lines().filter(|line| line.starts_with("error: ") || line.starts_with("warning: "));
    problems.map(|line| format!("{line}\n")).collect()
}

fn errors(output: &Output) -> Vec<String> {
    problems(output).lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    files
}
