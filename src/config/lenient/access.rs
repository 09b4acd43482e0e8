//! Lists, maps and variants, handed to serde piece by piece.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{BLANK, Part, Reader, Trail};
use crate::config::fault::Fault;
use crate::config::node::{Entry, Node};

/// The items of a list.
pub struct Items<'a> {
    pub reader: Reader<'a>,
    pub rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let reader = self.reader;
        let Some((index, node)) = self.rest.find(|(_, node)| !reader.is_dropped_twice(node)) else {
            return Ok(None);
        };
        let trail = Trail { above: reader.trail, step: Part::Index(index) };
        let item = Reader { node, trail: Some(&trail), ..reader };
        if !reader.is_dropped(node) {
            return seed.deserialize(item).map(Some).map_err(|fault| item.locate(fault));
        }
        let blank = Reader { node: &BLANK, ..item };
        seed.deserialize(blank).map(Some).map_err(|fault| item.locate(Fault { at: None, ..fault }))
    }
}

/// The entries of a map.
pub struct Fields<'a> {
    pub reader: Reader<'a>,
    /// The keys of a struct; none for a free map.
    pub known: Option<&'static [&'static str]>,
    pub rest: std::slice::Iter<'a, Entry>,
    /// The entry whose key was given last.
    pub value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for entry in self.rest.by_ref() {
            if self.reader.is_dropped(&entry.node) {
                continue;
            }
            let key = match self.known {
                None => entry.key.as_str(),
                Some(known) => match self.reader.known_key(&entry.key, known) {
                    // Nothing after the colon: the field keeps its default.
                    Some(_) if entry.node.is_null() => continue,
                    Some(key) => key,
                    None => continue,
                },
            };
            self.value = Some(entry);
            let key: StrDeserializer<'_, Fault> = key.into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.value.take() else {
            return Err(Fault::new("a value was asked for before its key", ""));
        };
        let trail = Trail { above: self.reader.trail, step: Part::Key(&entry.key) };
        let value = Reader { node: &entry.node, trail: Some(&trail), ..self.reader };
        seed.deserialize(value).map_err(|fault| value.locate(fault))
    }
}

/// An enum's variant with content, written as a map with one key.
pub struct Variant<'a> {
    pub reader: Reader<'a>,
    pub entry: &'a Entry,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = Variant<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Variant<'a>), Fault> {
        let name: StrDeserializer<'_, Fault> = self.entry.key.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(self.reader.wanted("a word"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let trail = Trail { above: self.reader.trail, step: Part::Key(&self.entry.key) };
        let content = Reader { node: &self.entry.node, trail: Some(&trail), ..self.reader };
        seed.deserialize(content).map_err(|fault| content.locate(fault))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        let trail = Trail { above: self.reader.trail, step: Part::Key(&self.entry.key) };
        Reader { node: &self.entry.node, trail: Some(&trail), ..self.reader }.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        let trail = Trail { above: self.reader.trail, step: Part::Key(&self.entry.key) };
        Reader { node: &self.entry.node, trail: Some(&trail), ..self.reader }.deserialize_struct("", fields, visitor)
    }
}
