//! Regions of live pages, and the addresses that name them.

use maud::Markup;

/// The regions of a page, by name.
pub(crate) type Regions = Vec<(&'static str, Markup)>;

/// Path and query of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageAddress {
    pub(crate) path: String,
    pub(crate) query: String,
}

impl PageAddress {
    pub(crate) fn parse(address: &str) -> Self {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        Self { path: path.to_owned(), query: query.to_owned() }
    }

    /// Returns the parts of the path.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|segment| !segment.is_empty()).collect()
    }
}
