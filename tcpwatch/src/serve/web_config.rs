//! TLS and passwords, in the file format that Prometheus and its exporters share
//! (`web.config.file`). What it asks for and cannot be done is refused, not passed over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebConfig {
    /// TLS; without it answers are in the clear.
    pub tls_server_config: Option<TlsConfig>,
    /// Who may ask, and the bcrypt hash of their password; nobody means everybody.
    #[serde(default)]
    pub basic_auth_users: BTreeMap<String, String>,
}

/// TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates, the server's first.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Whether clients must have a certificate.
    #[serde(default)]
    pub client_auth_type: ClientAuth,
    /// Whose certificates of clients are believed.
    pub client_ca_file: Option<PathBuf>,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub min_version: Version,
    /// The newest.
    #[serde(default = "newest")]
    pub max_version: Version,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum ClientAuth {
    /// They need none.
    #[default]
    NoClientCert,
    /// One that they show must be good.
    VerifyClientCertIfGiven,
    /// They need one.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2.
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    /// 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

fn newest() -> Version {
    Version::Tls13
}

impl WebConfig {
    /// Reads and checks it. Paths in it are relative to where it is.
    pub fn read(path: &Path) -> Result<Self> {
        let name = crate::core::comm::shown(path);
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).with_context(|| format!("{name} is no web configuration"))
    }

    fn parse(text: &str, directory: &Path) -> Result<Self> {
        // An empty file is no error elsewhere, either.
        let empty = text.lines().all(|line| line.trim().is_empty() || line.starts_with('#'));
        let mut config: Self = if empty { Self::default() } else { serde_saphyr::from_str(text)? };
        for (user, hash) in &config.basic_auth_users {
            // Only its form is looked at.
            hash.parse::<bcrypt::HashParts>().with_context(|| {
                format!(
                    "the password of {} is no bcrypt hash; htpasswd -nBC 10 \"\" makes one",
                    user.escape_default()
                )
            })?;
        }
        if let Some(tls) = &mut config.tls_server_config {
            tls.check()?;
            for path in
                [&mut tls.cert_file, &mut tls.key_file].into_iter().chain(&mut tls.client_ca_file)
            {
                *path = directory.join(&*path);
            }
        }
        Ok(config)
    }

    /// Whether it keeps strangers away: by passwords, or by certificates of clients.
    pub fn keeps_strangers_away(&self) -> bool {
        let required =
            |tls: &TlsConfig| tls.client_auth_type == ClientAuth::RequireAndVerifyClientCert;
        !self.basic_auth_users.is_empty() || self.tls_server_config.as_ref().is_some_and(required)
    }
}

impl TlsConfig {
    fn check(&self) -> Result<()> {
        if self.min_version > self.max_version {
            bail!("min_version is above max_version");
        }
        match (self.client_auth_type, &self.client_ca_file) {
            (ClientAuth::NoClientCert, Some(_)) => {
                bail!("client_ca_file needs client_auth_type, such as RequireAndVerifyClientCert")
            }
            (ClientAuth::NoClientCert, None) | (_, Some(_)) => Ok(()),
            (_, None) => bail!("client_auth_type needs client_ca_file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

    fn parse(text: &str) -> Result<WebConfig> {
        WebConfig::parse(text, Path::new("/etc/x"))
    }

    #[test]
    fn what_exporters_take_is_taken() {
        let text = format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: /run/key\n  min_version: TLS13\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\nbasic_auth_users:\n  alice: {HASH}\n"
        );
        let config = parse(&text).unwrap();
        assert!(config.keeps_strangers_away());
        let tls = config.tls_server_config.unwrap();
        assert_eq!(tls.cert_file, Path::new("/etc/x/server.crt"));
        assert_eq!(tls.key_file, Path::new("/run/key"));
        assert_eq!((tls.min_version, tls.max_version), (Version::Tls13, Version::Tls13));
        assert!(!parse("# nothing\n\n").unwrap().keeps_strangers_away());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "tls_server_confg: {}",
            "tls_server_config: {cert_file: a}",
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}",
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequestClientCert}",
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
            "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [X]}",
            "basic_auth_users: {alice: secret}",
            "basic_auth_users: {alice: $2b$04$short}",
            "[1, 2",
            "nonsense",
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
        let secret = parse("basic_auth_users: {alice: secret}").unwrap_err();
        assert!(!format!("{secret:#}").contains("secret"), "a password is not repeated");
    }
}
