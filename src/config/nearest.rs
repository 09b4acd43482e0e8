//! Which known key an unknown one was probably meant to be.

/// Single-letter edits (insert, delete, replace, swap of neighbours) between two words, ignoring ASCII case.
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<u8> = a.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let b: Vec<u8> = b.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j - 1] + same).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// The nearest known word and its distance, if it is near enough to be worth naming.
///
/// Near is two edits, or a third of the word when that is more, but never as many edits as the word has letters.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<(&'a str, usize)> {
    // Words are compared in quadratic time: an absurdly long key is nobody's typing error.
    if word.len() > 64 {
        return None;
    }
    let limit = (word.len() / 3).max(2).min(word.len().saturating_sub(1));
    known
        .iter()
        .map(|&candidate| (candidate, distance(word, candidate)))
        .filter(|&(_, edits)| edits <= limit)
        .min_by_key(|&(_, edits)| edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_the_key_that_was_meant() {
        let known = ["target", "rewrite", "path", "methods", "middlewares", "db"];
        let table = [
            ("swapped letters", "taregt", Some(("target", 1))),
            ("other case", "PATH", Some(("path", 0))),
            ("singular", "middleware", Some(("middlewares", 1))),
            ("nothing like it", "flavour", None),
            ("too short to guess", "x", None),
        ];
        for (what, word, found) in table {
            assert_eq!(nearest(word, &known), found, "{what}");
        }
        assert_eq!(nearest(&"a".repeat(1000), &known), None, "an absurd key");
    }
}
