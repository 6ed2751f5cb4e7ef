//! From an object that does not fit the others, as nve-core names it, back to the line that says so.
//!
//! What must stay true: every object of a setup has an [`Item`] here, so that no refusal is without file and line.

use std::collections::BTreeMap;

use nve_core::setup::SetupError;
use toml::Spanned;

use super::raw::Text;
use super::source::Source;
use super::{Place, Problem, Refused, Sections};

/// Where an object is written, and where each of its values is.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    values: Vec<(String, Place)>,
}

impl Item {
    pub(super) fn new(place: Place) -> Self {
        Self { place, values: Vec::new() }
    }

    pub(super) fn numbers<'a>(
        mut self,
        source: &Source,
        numbers: impl IntoIterator<Item = &'a Spanned<i64>>,
    ) -> Self {
        let numbers = numbers.into_iter().map(|n| (n.get_ref().to_string(), source.place(n.span().start)));
        self.values.extend(numbers);
        self
    }

    pub(super) fn texts<'a>(mut self, source: &Source, texts: impl IntoIterator<Item = &'a Text>) -> Self {
        let texts = texts.into_iter().map(|text| (text.get_ref().clone(), source.place(text.span().start)));
        self.values.extend(texts);
        self
    }

    /// The line of the value that `error` quotes (the longest, as 10.0.0.1 is also in 10.0.0.10), else the object's own.
    fn line_of(&self, error: &SetupError) -> Place {
        let quoted_in = |said: &str| {
            let quoted = self.values.iter().filter(|(text, _)| said.contains(text.as_str()));
            quoted.max_by_key(|(text, _)| text.len()).map(|(_, place)| place.clone())
        };
        quoted_in(&error.reason).or_else(|| quoted_in(&error.object)).unwrap_or_else(|| self.place.clone())
    }
}

/// Where everything is.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) host: Option<Item>,
    pub(super) uplink: Option<Item>,
    pub(super) domains: BTreeMap<String, Item>,
    pub(super) networks: BTreeMap<String, Item>,
    pub(super) attachments: BTreeMap<String, Item>,
    pub(super) services: BTreeMap<String, Item>,
    /// Mappings, listeners, aliases and crossings, by nve-core's name for each, in the order of reading.
    pub(super) others: Vec<(String, Item)>,
}

impl Places {
    pub(super) fn sections(&self) -> Option<Sections> {
        let place = |item: &Option<Item>| item.as_ref().map(|item| item.place.clone());
        let attachments = self.attachments.iter().map(|(name, item)| (format!("attachment.{name}"), item));
        let objects = attachments.chain(self.others.iter().map(|(name, item)| (name.clone(), item)));
        let objects = objects.map(|(name, item)| (name, item.place.clone())).collect();
        Some(Sections { host: place(&self.host)?, uplink: place(&self.uplink)?, objects })
    }

    /// Whether `object` is written in a config file.
    pub(super) fn has(&self, object: &str) -> bool {
        self.item(object).is_some()
    }

    fn item(&self, object: &str) -> Option<&Item> {
        match object.split_once('.') {
            Some(("domain", name)) => self.domains.get(name),
            Some(("network", name)) => self.networks.get(name),
            Some(("attachment", name)) => self.attachments.get(name),
            Some(("service", name)) => self.services.get(name),
            _ if object == "host" => self.host.as_ref(),
            _ if object == "uplink" => self.uplink.as_ref(),
            // The last: of two mappings of one address, the second is the offender.
            _ => self.others.iter().rfind(|(name, _)| name == object).map(|(_, item)| item),
        }
    }
}

/// The refusal an operator can act on.
pub(super) fn refused(error: &SetupError, places: &Places) -> Refused {
    let item = places.item(&error.object).or(places.host.as_ref());
    let place = item.map_or(Place { file: "config".into(), line: 1 }, |item| item.line_of(error));
    let what = format!("{}: {}", error.object, error.reason);
    Refused::one(Problem { place, what, remedy: error.remedy.clone() })
}
