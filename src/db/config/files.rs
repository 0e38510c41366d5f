//! The files that TLS needs: looked at when a configuration is made, and again when connecting failed.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ConfigError;

/// What a file in PEM form (RFC 7468) must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Certificate,
    Key,
}

/// A file in PEM form, and what names it.
#[derive(Debug, Clone)]
pub(crate) struct PemFile {
    pub setting: &'static str,
    pub path: PathBuf,
    pub holds: Holds,
}

impl PemFile {
    /// Whether it is there, can be read, and holds what it must.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let problem = match fs::read(&self.path) {
            Ok(content) => self.holds.problem(&content).map(str::to_owned),
            Err(error) => Some(format!("can't be read: {error}")),
        };
        problem.map_or(Ok(()), |problem| {
            Err(ConfigError::File { setting: self.setting, path: self.path.clone(), problem })
        })
    }
}

impl Holds {
    /// What is wrong with this content, if something is.
    pub(super) fn problem(self, content: &[u8]) -> Option<&'static str> {
        let content = String::from_utf8_lossy(content);
        let mut found = false;
        for block in content.split("-----BEGIN ").skip(1) {
            let Some((label, rest)) = block.split_once("-----") else { continue };
            let Some((body, _)) = rest.split_once("-----END ") else { continue };
            let wanted = match self {
                Self::Certificate => label == "CERTIFICATE",
                Self::Key => label.ends_with("PRIVATE KEY"),
            };
            if !wanted {
                continue;
            }
            if label.contains("ENCRYPTED") || body.contains("ENCRYPTED") {
                return Some("is encrypted, and the driver can't decrypt it");
            }
            let body: String = body.split_whitespace().collect();
            if STANDARD.decode(body).is_err() {
                return Some("is damaged: a part of it is not base64");
            }
            found = true;
        }
        (!found).then_some(match self {
            Self::Certificate => "holds no certificate in PEM form",
            Self::Key => "holds no private key in PEM form",
        })
    }
}
