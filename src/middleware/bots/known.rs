//! Bots that are known by name: a public list, embedded.

/// The list as text; see its head for the source, its version and its licence.
const LIST: &str = include_str!("known.txt");

/// What bots are for, as the list sorts them; each bot is of one kind or of a few.
pub const CATEGORIES: [&str; 12] = [
    "academic",
    "advertising",
    "ai-crawler",
    "archiver",
    "browser-automation",
    "feed-reader",
    "http-library",
    "monitoring",
    "scanner",
    "search-engine",
    "seo",
    "social-preview",
];

/// A set of [`CATEGORIES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Categories(u16);

impl Categories {
    /// The category of this name, in any case.
    pub fn named(name: &str) -> Option<Categories> {
        let index = CATEGORIES.iter().position(|category| category.eq_ignore_ascii_case(name))?;
        Some(Categories(1 << index))
    }

    /// Both sets together.
    pub fn with(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether the sets share a category.
    pub fn meet(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }

    /// Index of the first one.
    pub fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }
}

/// A bot of the list.
#[derive(Clone, Copy, Debug)]
pub struct Bot {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub categories: Categories,
    /// The text that gives it away, in any case; `^` stands for the start of the header, `$` for its end.
    pub text: &'static str,
}

/// The bots of the list, in its order.
pub fn bots() -> impl Iterator<Item = Bot> {
    LIST.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut columns = line.split('\t');
        let (name, categories, text) = (columns.next()?, columns.next()?, columns.next()?);
        let categories =
            categories.split(',').filter_map(Categories::named).fold(Categories::default(), Categories::with);
        Some(Bot { name, categories, text })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_a_bot() {
        let lines = LIST.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines > 1000, "{lines}");
        assert_eq!(bots().count(), lines);
        for bot in bots() {
            assert!(!bot.name.is_empty() && bot.text.trim_matches(['^', '$']).len() >= 3, "{bot:?}");
            assert!(bot.categories.first().is_some(), "{bot:?} has no category that is known here");
        }
        assert!(LIST.lines().nth(1).is_some_and(|line| line.contains("MIT")));
    }
}
