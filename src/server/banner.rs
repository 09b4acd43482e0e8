//! What stands on stdout when the gateway starts: name, version, table of routes. Spec core §1.1, §1.3.

use crate::config::Config;

/// Name and version.
pub fn greet() {
    println!("goma-edge {} - Goma Gateway configuration on Pingora", env!("CARGO_PKG_VERSION"));
    println!("Apache License 2.0");
}

/// The routes, one a line.
pub fn routes(config: &Config) {
    println!("{:<23} {:<7} {:>8}  {:<23} REWRITE", "NAME", "ENABLED", "PRIORITY", "PATH");
    for route in &config.routes {
        let rewrite = route.rewrite.as_deref().unwrap_or_default();
        println!(
            "{:<23} {:<7} {:>8}  {:<23} {rewrite}",
            cut(&route.name),
            route.enabled,
            route.priority,
            cut(&route.path)
        );
    }
}

/// At most 20 characters, as in Goma's table.
fn cut(text: &str) -> String {
    match text.char_indices().nth(20) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
