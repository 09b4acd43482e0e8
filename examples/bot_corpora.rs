//! Measures bot detection on user agents, a line each: `bot_corpora FILE…`. See `scripts/bot_corpora.py`.
//!
//! Prints for each file how many lines it takes for bots; with `-v`, each line on which the name of its file (`+…` for bots,
//! `-…` for others) was wrong, and with what it gave itself away.

use std::path::Path;

use goma_edge::middleware::bots::look;

fn main() -> std::io::Result<()> {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument == "-v");
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let name = Path::new(&file).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let agents: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let found = agents.iter().filter(|agent| look(agent.as_bytes()).is_bot()).count();
        println!("{name}\t{}\t{found}", agents.len());
        for agent in agents.iter().filter(|_| !flags.is_empty()) {
            let sight = look(agent.as_bytes());
            if sight.is_bot() != name.starts_with('+') {
                let told = if sight.is_bot() { sight.tells().1 } else { "-" };
                println!("\t{told}\t{agent}");
            }
        }
    }
    Ok(())
}
