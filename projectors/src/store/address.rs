//! The URL of a read model, which is shown without its secrets.

use std::fmt::{self, Debug, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::StoreError;
use super::postgres::sessions::Sessions;

/// User and password that PostgreSQL is set up with in every tutorial.
const DEFAULT_CREDENTIALS: (&str, &str) = ("postgres", "postgres");

/// The URL of a read model: `sqlite://path` or `postgres://user:password@host:port/database`. It is
/// displayed without the password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ReadModelUrl {
    pub(super) address: Address,
    pub(super) shown: String,
}

impl ReadModelUrl {
    /// Returns the file of a SQLite database.
    pub fn file(&self) -> Option<&Path> {
        match &self.address {
            Address::Sqlite(path) => Some(path),
            Address::Postgres(..) => None,
        }
    }

    /// Returns whether user and password are those that PostgreSQL is set up with in every tutorial.
    pub fn has_default_password(&self) -> bool {
        let Address::Postgres(options, _) = &self.address else { return false };
        let url = options.to_url_lossy();
        (url.username(), url.password()) == (DEFAULT_CREDENTIALS.0, Some(DEFAULT_CREDENTIALS.1))
    }
}

impl FromStr for ReadModelUrl {
    type Err = StoreError;

    /// # Errors
    /// [`StoreError::Address`] if the URL is not valid.
    fn from_str(url: &str) -> Result<Self, StoreError> {
        Ok(Self { address: Address::parse(url)?, shown: without_password(url) })
    }
}

impl TryFrom<String> for ReadModelUrl {
    type Error = StoreError;

    fn try_from(url: String) -> Result<Self, StoreError> {
        url.parse()
    }
}

/// Writes the URL without its password, and without parameters, which may contain one.
impl Display for ReadModelUrl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Writes the URL as [`Display`] does.
impl Debug for ReadModelUrl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ReadModelUrl({self})")
    }
}

/// A database that can be opened.
#[derive(Clone)]
pub(super) enum Address {
    Postgres(Box<PgConnectOptions>, Sessions),
    Sqlite(PathBuf),
}

impl Address {
    fn parse(url: &str) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Address { url: without_password(url), reason };
        match url.split_once("://") {
            Some(("sqlite", "")) => Err(unusable("it names no file".to_owned())),
            Some(("sqlite", path)) if path.contains('?') => {
                Err(unusable("a sqlite URL is a path and takes no parameters".to_owned()))
            }
            Some(("sqlite", path)) => Ok(Self::Sqlite(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => {
                let (url, sessions) = without_pooler(url).map_err(unusable)?;
                let options: PgConnectOptions =
                    url.parse().map_err(|error: sqlx::Error| unusable(error.to_string()))?;
                let options = match sessions {
                    Sessions::Own => options,
                    // `PgBouncer` refuses parameters of a session that it does not know.
                    Sessions::Pooled => {
                        options.statement_cache_capacity(0).extra_float_digits(None)
                    }
                };
                Ok(Self::Postgres(Box::new(options), sessions))
            }
            Some(_) | None => {
                Err(unusable("it must begin with `sqlite://` or `postgres://`".to_owned()))
            }
        }
    }
}

/// Removes our own parameter `pgbouncer` from the URL, and returns its meaning.
fn without_pooler(url: &str) -> Result<(String, Sessions), String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (ours, kept): (Vec<_>, Vec<_>) =
        query.split('&').partition(|parameter| parameter.starts_with("pgbouncer="));
    let sessions = match ours[..] {
        [] | ["pgbouncer=false"] => Sessions::Own,
        ["pgbouncer=true"] => Sessions::Pooled,
        _ => return Err("pgbouncer is `true` or `false`".to_owned()),
    };
    Ok((format!("{address}?{}", kept.join("&")).trim_end_matches('?').to_owned(), sessions))
}

/// The URL as it may be shown: without a password, and without parameters, which may hold one.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(malformed)".to_owned() };
    if scheme == "sqlite" {
        return url.to_owned();
    }
    // The last `@`: a password may contain one that is not escaped.
    let shown = match rest.rsplit_once('@') {
        // The start of the parameters is ambiguous here, and a wrong guess would show a secret.
        Some((before, _)) if before.contains('?') => "(not shown)".to_owned(),
        Some((before, place)) => {
            format!("{}@{place}", before.split([':', '/']).next().unwrap_or_default())
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{}", shown.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_shown() {
        let urls = [
            ("postgres://dofs:s3cret@db:5432/orders", "postgres://dofs@db:5432/orders"),
            ("postgres://dofs:s3@cr/et@db/orders", "postgres://dofs@db/orders"),
            ("postgres://db/orders?user=dofs&password=s3cret", "postgres://db/orders"),
            ("postgres://db/orders?password=s3@cret", "postgres://(not shown)"),
            ("postgres://dofs@db/orders", "postgres://dofs@db/orders"),
            ("postgres://dofs:s?3@db/orders", "postgres://(not shown)"),
            ("sqlite:///data/me@home/read.db", "sqlite:///data/me@home/read.db"),
            ("s3cret", "(malformed)"),
        ];
        for (url, shown) in urls {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn pgbouncer_parameter_selects_pooled_sessions() {
        let pooled = |url| without_pooler(url).unwrap();
        let plain = "postgres://db/orders?sslmode=require";
        assert_eq!(pooled(plain), (plain.to_owned(), Sessions::Own));
        let both = "postgres://db/orders?pgbouncer=true&sslmode=require";
        assert_eq!(pooled(both), (plain.to_owned(), Sessions::Pooled));
        let alone = pooled("postgres://db/orders?pgbouncer=true");
        assert_eq!(alone, ("postgres://db/orders".to_owned(), Sessions::Pooled));
    }

    #[test]
    fn default_password_is_found_in_every_url_form() {
        let has_default = |url: &str| url.parse::<ReadModelUrl>().unwrap().has_default_password();
        for default in [
            "postgres://postgres:postgres@db/orders",
            "postgres://postgres:p%6Fstgres@db/orders",
            "postgres://db/orders?user=postgres&password=postgres",
        ] {
            assert!(has_default(default), "{default}");
        }
        for other in [
            "postgres://dofs:s3cret@db/orders",
            "postgres://dofs:x@db/postgres:postgres@",
            "postgres://postgres@db/orders",
            "sqlite:///postgres:postgres@/rows",
        ] {
            assert!(!has_default(other), "{other}");
        }
    }

    #[test]
    fn invalid_addresses_say_why() {
        let urls = [
            ("mysql://db/orders", "must begin with `sqlite://` or `postgres://`"),
            ("read.db", "must begin with"),
            ("sqlite://", "names no file"),
            ("sqlite://read.db?mode=ro", "takes no parameters"),
            ("postgres://db:port/orders", "not usable"),
            ("postgres://db/orders?pgbouncer=yes", "pgbouncer is `true` or `false`"),
        ];
        for (url, reason) in urls {
            let error = Address::parse(url).err().expect("not usable").to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
