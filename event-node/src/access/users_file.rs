//! The users file: names, groups and password hashes of all users, as JSON.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::access::{
    caller::{ADMINS, OPERATORS, User},
    password::PasswordHash,
};

/// Minimum and maximum number of characters of a password.
const MIN_PASSWORD_CHARS: usize = 12;
const MAX_PASSWORD_CHARS: usize = 256;

const MAX_NAME_BYTES: usize = 100;

/// Why the users file cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    #[error("cannot read the users file `{path}`: create it with `dofs node users add`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the users file `{path}` is invalid")]
    Invalid {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write the users file `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("user `{0}` exists")]
    Exists(String),
    #[error("user `{0}` does not exist")]
    Missing(String),
    #[error(
        "invalid name `{0}`: expected up to {MAX_NAME_BYTES} visible ASCII characters without `:` \
         that do not begin with `$`; groups may also be `{ADMINS}` and `{OPERATORS}`"
    )]
    Name(String),
    #[error(
        "invalid password: expected {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters without \
         control characters"
    )]
    Password,
    #[error("the system has no randomness for the salt of the password")]
    Randomness,
}

/// Content of the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredUsers {
    users: BTreeMap<String, StoredUser>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredUser {
    groups: Vec<String>,
    password: PasswordHash,
}

/// Name and groups of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserSummary {
    pub name: String,
    pub groups: Vec<String>,
}

/// The users file, for changes. A change takes effect with [`save`](Self::save).
pub struct UsersFile {
    path: PathBuf,
    content: StoredUsers,
}

impl UsersFile {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, UsersFileError> {
        let content = parse_users(path, &read_users(path)?)?;
        Ok(Self { path: path.to_owned(), content })
    }

    /// Reads the file. A missing file counts as a file without users.
    pub fn open_or_new(path: &Path) -> Result<Self, UsersFileError> {
        match Self::open(path) {
            Err(UsersFileError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(Self { path: path.to_owned(), content: StoredUsers::default() })
            }
            opened => opened,
        }
    }

    /// Returns all users in the order of their names.
    pub fn list_users(&self) -> Vec<UserSummary> {
        let users = self.content.users.iter();
        users
            .map(|(name, user)| UserSummary { name: name.clone(), groups: user.groups.clone() })
            .collect()
    }

    /// Adds a user. Takes about 0.1 s for the hash of the password.
    pub fn add_user(
        &mut self,
        name: &str,
        groups: Vec<String>,
        password: &str,
    ) -> Result<(), UsersFileError> {
        if !is_name(name) {
            return Err(UsersFileError::Name(name.to_owned()));
        }
        if let Some(invalid) = groups.iter().find(|group| !is_group(group)) {
            return Err(UsersFileError::Name(invalid.clone()));
        }
        if self.content.users.contains_key(name) {
            return Err(UsersFileError::Exists(name.to_owned()));
        }
        let user = StoredUser { groups, password: hash_password(password)? };
        self.content.users.insert(name.to_owned(), user);
        Ok(())
    }

    pub fn remove_user(&mut self, name: &str) -> Result<(), UsersFileError> {
        let removed = self.content.users.remove(name);
        removed.map(drop).ok_or_else(|| UsersFileError::Missing(name.to_owned()))
    }

    /// Replaces the password of a user. Takes about 0.1 s for the hash of the password.
    pub fn set_password(&mut self, name: &str, password: &str) -> Result<(), UsersFileError> {
        let user = self.content.users.get_mut(name);
        let user = user.ok_or_else(|| UsersFileError::Missing(name.to_owned()))?;
        user.password = hash_password(password)?;
        Ok(())
    }

    /// Replaces the file atomically. The new file has mode, owner and group of the old one. A first
    /// file can be read by its owner only.
    pub fn save(&self) -> Result<(), UsersFileError> {
        self.write_file()
            .map_err(|source| UsersFileError::Write { path: self.path.clone(), source })
    }

    fn write_file(&self) -> io::Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &self.content)?;
        file.write_all(b"\n")?;
        if let Ok(old) = fs::metadata(&self.path) {
            // A command that runs as root must not take the file from the user of the node.
            let (new, owner) = (file.as_file().metadata()?, (old.uid(), old.gid()));
            if (new.uid(), new.gid()) != owner {
                std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            file.as_file().set_permissions(old.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // Without it, a power loss could bring the old file back.
        File::open(folder)?.sync_all()
    }
}

/// The users by name, for authentication.
#[derive(Default)]
pub(super) struct UserTable {
    users: HashMap<String, (Arc<User>, PasswordHash)>,
}

impl UserTable {
    /// Parses `text`, the contents of the file at `path`.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, UsersFileError> {
        let users = parse_users(path, text)?.users.into_iter();
        let users = users.map(|(name, StoredUser { groups, password })| {
            (name.clone(), (Arc::new(User { name, groups }), password))
        });
        Ok(Self { users: users.collect() })
    }

    pub(super) fn find_user(&self, name: &str) -> Option<(Arc<User>, PasswordHash)> {
        self.users.get(name).cloned()
    }
}

/// Returns the contents of the file.
pub(super) fn read_users(path: &Path) -> Result<Vec<u8>, UsersFileError> {
    fs::read(path).map_err(|source| UsersFileError::Read { path: path.to_owned(), source })
}

fn parse_users(path: &Path, text: &[u8]) -> Result<StoredUsers, UsersFileError> {
    serde_json::from_slice(text)
        .map_err(|source| UsersFileError::Invalid { path: path.to_owned(), source })
}

fn hash_password(password: &str) -> Result<PasswordHash, UsersFileError> {
    let n_chars = password.chars().count();
    let is_valid = (MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&n_chars)
        && !password.contains(char::is_control);
    if !is_valid {
        return Err(UsersFileError::Password);
    }
    PasswordHash::create(password).map_err(|_| UsersFileError::Randomness)
}

/// Returns whether basic authentication can carry the name, and whether it differs from the roles
/// of the system, which begin with `$`.
fn is_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_valid)
        && !name.starts_with('$')
}

fn is_group(group: &str) -> bool {
    is_name(group) || [ADMINS, OPERATORS].contains(&group)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWORD: &str = "a long password";

    #[test]
    fn saved_users_are_found_with_their_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.json");
        let mut file = UsersFile::open_or_new(&path).unwrap();
        file.add_user("ada", vec!["$ops".to_owned(), "billing".to_owned()], PASSWORD).unwrap();
        file.add_user("bob", Vec::new(), PASSWORD).unwrap();
        file.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains(PASSWORD));

        let mut file = UsersFile::open(&path).unwrap();
        let names: Vec<_> = file.list_users().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["ada", "bob"]);
        file.remove_user("bob").unwrap();
        file.set_password("ada", "another password").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        file.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "kept");
        let table = UserTable::parse(&path, &read_users(&path).unwrap()).unwrap();
        let (user, hash) = table.find_user("ada").unwrap();
        assert_eq!(user.groups, ["$ops", "billing"]);
        assert!(hash.is_hash_of("another password") && !hash.is_hash_of(PASSWORD));
        assert!(table.find_user("bob").is_none());
    }

    #[test]
    fn invalid_names_groups_and_passwords_are_refused() {
        let mut file = UsersFile::open_or_new(Path::new("missing.json")).unwrap();
        let none = Vec::new;
        for name in ["", "a:b", "$admins", "a b", "b\u{fc}cher", &"n".repeat(101)] {
            let refused = file.add_user(name, none(), PASSWORD);
            assert!(matches!(refused, Err(UsersFileError::Name(_))), "{name}");
        }
        let refused = file.add_user("ada", vec!["$all".to_owned()], PASSWORD);
        assert!(matches!(refused, Err(UsersFileError::Name(_))), "`$all` is every user");
        for password in ["too short", "with a line\nbreak", &"x".repeat(257)] {
            let refused = file.add_user("ada", none(), password);
            assert!(matches!(refused, Err(UsersFileError::Password)), "{password}");
        }
        file.add_user("ada", none(), PASSWORD).unwrap();
        let repeated = file.add_user("ada", none(), PASSWORD);
        assert!(matches!(repeated, Err(UsersFileError::Exists(_))));
        assert!(matches!(file.remove_user("bob"), Err(UsersFileError::Missing(_))));
    }

    #[test]
    fn unreadable_and_invalid_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.json");
        let named = path.display().to_string();
        let error = || UsersFile::open(&path).err().unwrap();
        assert!(error().to_string().contains(&named), "{}", error());
        for text in ["", "{}", r#"{"users": {"ada": {"groups": [], "password": "secret"}}}"#] {
            fs::write(&path, text).unwrap();
            assert!(matches!(error(), UsersFileError::Invalid { .. }), "{text}");
        }
    }
}
