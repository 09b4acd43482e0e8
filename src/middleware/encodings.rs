//! Content codings and what a client says about them. RFC 9110 §8.4.1 and §12.5.3.

use http::{HeaderMap, HeaderValue, header};

/// A coding that responses can be packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// Brotli, RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Value of `Content-Encoding`.
    pub fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        })
    }
}

/// How welcome each coding is to a client, from 0 (refused) to 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    zstd: u16,
    br: u16,
    gzip: u16,
    identity: Identity,
}

/// How welcome an unpacked body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Identity {
    /// Nothing is said: any coding that is welcome is better.
    #[default]
    Unsaid,
    Weight(u16),
}

impl Accepted {
    /// Reads all lines of `Accept-Encoding`. A client that says nothing gets bodies as they are. What cannot be read is
    /// passed over.
    pub fn of(headers: &HeaderMap) -> Accepted {
        let (mut zstd, mut br, mut gzip, mut identity, mut others) = (None, None, None, None, None);
        let lines = headers.get_all(header::ACCEPT_ENCODING).into_iter();
        for item in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = weight(parts) else { continue };
            let slot = match name {
                name if name.eq_ignore_ascii_case(b"zstd") => &mut zstd,
                name if name.eq_ignore_ascii_case(b"br") => &mut br,
                // RFC 9110 §8.4.1.3: the same thing.
                name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => &mut gzip,
                name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                b"*" => &mut others,
                _ => continue,
            };
            slot.get_or_insert(weight);
        }
        let of = |coding: Option<u16>| coding.or(others).unwrap_or(0);
        // `*` refuses what is not named, the unpacked body included; it does not wish for it.
        let identity = identity.or(others.filter(|weight| *weight == 0));
        let identity = identity.map_or(Identity::Unsaid, Identity::Weight);
        Accepted { zstd: of(zstd), br: of(br), gzip: of(gzip), identity }
    }

    /// The coding that is most welcome; of several, the first in `preferred`. `None`: leave the body as it is.
    pub fn best(&self, preferred: &[Coding]) -> Option<Coding> {
        let mut best: Option<(Coding, u16)> = None;
        for coding in preferred {
            let weight = self.weight(*coding);
            if weight > best.map_or(0, |(_, weight)| weight) {
                best = Some((*coding, weight));
            }
        }
        let (coding, weight) = best?;
        match self.identity {
            Identity::Weight(plain) if plain > weight => None,
            _ => Some(coding),
        }
    }

    /// Whether the client does not want unpacked bodies.
    pub fn refuses_identity(&self) -> bool {
        self.identity == Identity::Weight(0)
    }

    fn weight(&self, coding: Coding) -> u16 {
        match coding {
            Coding::Zstd => self.zstd,
            Coding::Br => self.br,
            Coding::Gzip => self.gzip,
        }
    }
}

/// The weight among the parameters of an item: 1000 without one, `None` for one that is none.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let given = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(2)?;
        name.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    let Some(given) = given else { return Some(1000) };
    let (whole, fraction) = given.split_first()?;
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let scale = [100, 10, 1];
    let thousandths: u16 = digits.iter().zip(scale).map(|(digit, scale)| u16::from(digit - b'0') * scale).sum();
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn accepted(lines: &[&str]) -> Accepted {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, line.parse().unwrap());
        }
        Accepted::of(&headers)
    }

    #[test]
    fn the_most_welcome_coding_is_taken() {
        use Coding::*;
        for (line, best, about) in [
            ("gzip, deflate, br, zstd", Some(Zstd), "equals: the server's order"),
            ("gzip, deflate, br", Some(Br), "a browser over plain HTTP/2"),
            ("gzip", Some(Gzip), "one"),
            ("x-gzip", Some(Gzip), "its older name"),
            ("GZIP;Q=0.5", Some(Gzip), "in any case"),
            ("gzip;q=1.0, br;q=0.8, *;q=0.1", Some(Gzip), "weights win over the server's order"),
            ("br;q=0.001", Some(Br), "a small weight is one"),
            ("*", Some(Zstd), "anything"),
            ("*;q=0.5, gzip", Some(Gzip), "one more than others"),
            ("zstd;q=0, *", Some(Br), "a refused one is not among the others"),
            ("gzip;q=0", None, "refused"),
            ("*;q=0", None, "everything refused"),
            ("*;q=0, gzip", Some(Gzip), "everything else refused"),
            ("", None, "empty"),
            ("identity", None, "unpacked only"),
            ("identity, gzip;q=0.5", None, "unpacked is more welcome"),
            ("identity;q=0.5, gzip", Some(Gzip), "unpacked is less welcome"),
            ("identity, gzip", Some(Gzip), "equally welcome: what saves bytes"),
            ("identity;q=0, br", Some(Br), "unpacked refused"),
            ("deflate, compress", None, "none of ours"),
            ("gzip;q=2, br", Some(Br), "no weight at all"),
            ("gzip;q=0.1234, br;q=, zstd;q=x", None, "none of these is a weight"),
            (" gzip ; q=0.2 ,, br;q=0.1", Some(Gzip), "blanks and empty items"),
            ("gzip;q=0, gzip", None, "the first word on a coding counts"),
        ] {
            assert_eq!(accepted(&[line]).best(&ALL), best, "{about}: {line}");
        }
        assert_eq!(accepted(&[]).best(&ALL), None, "nothing said");
        assert_eq!(accepted(&["gzip;q=0.5", "br"]).best(&ALL), Some(Br), "several lines are one");
        assert_eq!(accepted(&["gzip, br, zstd"]).best(&[Gzip, Br]), Some(Gzip), "the order is the operator's");
    }

    #[test]
    fn an_unpacked_body_may_be_refused() {
        for (line, refused) in
            [("identity;q=0, gzip", true), ("*;q=0, gzip", true), ("gzip", false), ("*;q=0, identity", false)]
        {
            assert_eq!(accepted(&[line]).refuses_identity(), refused, "{line}");
        }
    }
}
