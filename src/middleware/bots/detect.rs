//! Whether a user agent is a bot's, in one pass of one automaton.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

use super::known::{self, Bot, Categories};
use super::signs::{Fits, HARMLESS, PLATFORMS, WORDS};

/// The detector, made when it is first needed: a few milliseconds, a few megabytes.
pub static DETECTOR: LazyLock<Detector> = LazyLock::new(Detector::new);

/// Knows bots by name and by other signs.
pub struct Detector {
    automaton: AhoCorasick,
    /// By number of the pattern.
    signs: Vec<(Sign, Place)>,
    bots: Vec<Bot>,
}

/// What a pattern says when it is found.
#[derive(Clone, Copy)]
enum Sign {
    /// The bot of this number.
    Bot(u16),
    /// This word.
    Word(&'static str),
    /// Something that browsers and devices say.
    Platform,
}

/// Where a pattern counts.
#[derive(Clone, Copy)]
struct Place {
    starts: Edge,
    ends: Edge,
}

#[derive(Clone, Copy)]
enum Edge {
    Anywhere,
    /// Beside it stands no letter, and before it no digit either.
    Word,
    /// The end of the header.
    Text,
}

/// What a user agent looks like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// The first bot of the list that it names.
    named: Option<Bot>,
    /// What all bots that it names are for.
    categories: Categories,
    /// A word that bots use.
    word: Option<&'static str>,
    /// Whether it says where it runs.
    platform: bool,
}

impl Sight {
    /// Whether it is a bot's.
    pub fn is_bot(&self) -> bool {
        self.named.is_some() || self.word.is_some() || !self.platform
    }

    /// What all the bots are for that it names.
    pub fn categories(&self) -> Categories {
        self.categories
    }

    /// What gave it away, in our words: nothing of what the client sent.
    pub fn tells(&self) -> (&'static str, &'static str) {
        match (self.named, self.word) {
            (Some(bot), _) => ("bot", bot.name),
            (None, Some(word)) => ("sign of a bot", word),
            (None, None) => ("bot", "no browser or device"),
        }
    }
}

impl Detector {
    fn new() -> Detector {
        let bots: Vec<Bot> = known::bots().collect();
        let named = (0u16..).zip(&bots).map(|(number, bot)| bot_pattern(number, bot));
        let words = WORDS.iter().map(|(word, fits)| (*word, Sign::Word(word), fits.place()));
        let platforms = PLATFORMS.iter().map(|(text, fits)| (*text, Sign::Platform, fits.place()));
        let patterns: Vec<_> = named.chain(words).chain(platforms).collect();
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(patterns.iter().map(|(text, ..)| text));
        Detector {
            automaton: automaton.expect("the list is a part of the program; a test builds it"),
            signs: patterns.into_iter().map(|(_, sign, place)| (sign, place)).collect(),
            bots,
        }
    }

    /// Looks at a user agent. Allocates nothing.
    pub fn look(&self, agent: &[u8]) -> Sight {
        let mut sight = Sight::default();
        let model = model(agent);
        for found in self.automaton.find_overlapping_iter(agent) {
            let (sign, place) = self.signs[found.pattern().as_usize()];
            if !place.fits(agent, found.range()) {
                continue;
            }
            let in_model = model.contains(&found.start());
            match sign {
                Sign::Platform => sight.platform = true,
                Sign::Bot(number) if !in_model || is_product(agent, found.end()) => {
                    let bot = self.bots[usize::from(number)];
                    sight.categories = sight.categories.with(bot.categories);
                    sight.named.get_or_insert(bot);
                }
                Sign::Word(word) if !in_model && sight.word.is_none() && !is_harmless(word, agent, found.range()) => {
                    sight.word = Some(word);
                }
                Sign::Bot(_) | Sign::Word(_) => {}
            }
        }
        sight.word = sight.word.or_else(|| has_mail(agent).then_some("mail address"));
        sight
    }
}

fn bot_pattern(number: u16, bot: &Bot) -> (&'static str, Sign, Place) {
    let (text, starts) = match bot.text.strip_prefix('^') {
        Some(text) => (text, Edge::Text),
        None if bot.text.starts_with(|first: char| first.is_ascii_alphanumeric()) => (bot.text, Edge::Word),
        None => (bot.text, Edge::Anywhere),
    };
    let (text, ends) = text.strip_suffix('$').map_or((text, Edge::Anywhere), |text| (text, Edge::Text));
    (text, Sign::Bot(number), Place { starts, ends })
}

impl Fits {
    fn place(self) -> Place {
        match self {
            Fits::Anywhere => Place { starts: Edge::Anywhere, ends: Edge::Anywhere },
            Fits::Ending => Place { starts: Edge::Anywhere, ends: Edge::Word },
            Fits::Starting => Place { starts: Edge::Word, ends: Edge::Anywhere },
        }
    }
}

impl Place {
    fn fits(self, text: &[u8], at: Range<usize>) -> bool {
        let starts = match self.starts {
            Edge::Anywhere => true,
            Edge::Word => at.start == 0 || !text[at.start - 1].is_ascii_alphanumeric(),
            Edge::Text => at.start == 0,
        };
        starts
            && match self.ends {
                Edge::Anywhere => true,
                Edge::Word => text.get(at.end).is_none_or(|next| !next.is_ascii_alphabetic()),
                Edge::Text => at.end == text.len(),
            }
    }
}

/// The part of an Android browser's user agent that names the device: makers call them as they like, `Spider 8` too.
fn model(agent: &[u8]) -> Range<usize> {
    const HEAD: &[u8] = b"Mozilla/5.0 (Linux; ";
    let inside = || {
        let rest = agent.strip_prefix(HEAD)?;
        let rest = rest.strip_prefix(b"U; ").unwrap_or(rest).strip_prefix(b"Android ")?;
        let version = memchr::memchr(b';', rest)?;
        let start = agent.len() - rest.len() + version;
        let end = start + memchr::memchr(b')', &agent[start..])?;
        Some(start..end)
    };
    inside().unwrap_or(0..0)
}

/// Whether a word stands where it means nothing.
fn is_harmless(word: &str, agent: &[u8], at: Range<usize>) -> bool {
    let beside = |text: &[u8], near: Option<&[u8]>| near.is_some_and(|near| near.eq_ignore_ascii_case(text));
    HARMLESS.iter().any(|(before, harmless, behind)| {
        *harmless == word
            && beside(before.as_bytes(), at.start.checked_sub(before.len()).and_then(|from| agent.get(from..at.start)))
            && beside(behind.as_bytes(), agent.get(at.end..at.end + behind.len()))
    })
}

/// Whether a name ends here as products do, with `/` and a version.
fn is_product(agent: &[u8], end: usize) -> bool {
    let rest = if agent[end - 1] == b'/' { &agent[end - 1..] } else { &agent[end..] };
    matches!(rest, [b'/', digit, ..] if digit.is_ascii_digit())
}

/// Whether somebody left a mail address for complaints.
fn has_mail(agent: &[u8]) -> bool {
    memchr::memchr_iter(b'@', agent).any(|at| {
        let domain = &agent[at + 1..];
        let label =
            domain.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-').unwrap_or(domain.len());
        domain.first().is_some_and(u8::is_ascii_alphabetic)
            && matches!(domain.get(label..), Some([b'.', next, ..]) if next.is_ascii_alphabetic())
    })
}
