//! Notes commit and time of the build for `goma version`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-env-changed=GOMA_COMMIT");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let commit = std::env::var("GOMA_COMMIT").ok().or_else(|| said(&["git", "rev-parse", "--short=12", "HEAD"]));
    let time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => said(&["date", "-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]),
        Err(_) => said(&["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"]),
    };
    println!("cargo:rustc-env=GOMA_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=GOMA_BUILD_TIME={}", time.as_deref().unwrap_or("unknown"));
}

fn said(command: &[&str]) -> Option<String> {
    let output = Command::new(command[0]).args(&command[1..]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
