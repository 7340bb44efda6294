//! The visitor's preferences: colours, and keyboard shortcuts. Cookies hold them, apart from the session.

use cookie::CookieJar as RawJar;
use serde::Deserialize;

/// Cookie with the colours.
pub(crate) const THEME: &str = "dofs_theme";
/// Cookie that says whether single-key shortcuts are on.
pub(crate) const SHORTCUTS: &str = "dofs_shortcuts";
const OFF: &str = "off";

/// Colours of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Theme {
    /// As the visitor's system.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub(crate) const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Preferences of a visitor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preferences {
    pub(crate) theme: Theme,
    /// Whether single-key shortcuts are on. Speech input triggers them by accident.
    pub(crate) has_shortcuts: bool,
}

impl Preferences {
    /// Reads the preferences from the cookies of a request.
    pub(crate) fn read(cookies: &RawJar) -> Self {
        let theme = cookies.get(THEME).and_then(|cookie| {
            Theme::ALL.into_iter().find(|theme| theme.as_str() == cookie.value())
        });
        let has_shortcuts = cookies.get(SHORTCUTS).is_none_or(|cookie| cookie.value() != OFF);
        Self { theme: theme.unwrap_or_default(), has_shortcuts }
    }

    /// Returns the value of the attribute by which the script knows whether shortcuts are on.
    pub(crate) fn shortcuts(self) -> &'static str {
        name_shortcuts(self.has_shortcuts)
    }
}

/// Returns the value of cookie and attribute.
pub(crate) fn name_shortcuts(is_on: bool) -> &'static str {
    if is_on { "on" } else { OFF }
}
