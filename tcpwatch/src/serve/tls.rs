//! TLS, with certificates that are read again when they change: they are renewed while the agent runs.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
        version::{TLS12, TLS13},
    },
};

use super::web_config::{ClientAuth, TlsConfig, Version};

/// When each of the files was written.
type Stamps = Vec<Option<SystemTime>>;

/// The server's side of TLS.
pub(super) struct Tls {
    config: TlsConfig,
    current: Mutex<(Stamps, TlsAcceptor)>,
}

impl Tls {
    /// Reads certificates and key.
    pub(super) fn new(config: TlsConfig) -> Result<Self> {
        let current = Mutex::new((stamps(&config), acceptor(&config)?));
        Ok(Self { config, current })
    }

    /// For the next connection. If what has changed is of no use, what there was goes on.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.config);
        if stamps != current.0 {
            match acceptor(&self.config) {
                Ok(acceptor) => *current = (stamps, acceptor),
                Err(error) => {
                    log::warn!("the new certificates are not used: {error:#}");
                    current.0 = stamps;
                }
            }
        }
        current.1.clone()
    }
}

fn stamps(config: &TlsConfig) -> Stamps {
    let written = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    let paths = [Some(&config.cert_file), Some(&config.key_file), config.client_ca_file.as_ref()];
    paths.into_iter().flatten().map(|path| written(path)).collect()
}

fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor> {
    let all: [(Version, &SupportedProtocolVersion); 2] =
        [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    let spoken = config.min_version..=config.max_version;
    let versions: Vec<_> =
        all.into_iter().filter(|(version, _)| spoken.contains(version)).map(|(_, it)| it).collect();
    let certificates = certificates(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).with_context(|| {
        format!("read a private key from {}", crate::core::comm::shown(&config.key_file))
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions)?;
    let builder = match verifier(config)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(certificates, key).with_context(|| {
        format!(
            "{} and {} do not go together",
            crate::core::comm::shown(&config.cert_file),
            crate::core::comm::shown(&config.key_file)
        )
    })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn verifier(config: &TlsConfig) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(path) = &config.client_ca_file else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| {
            format!("{} has a certificate of no use", crate::core::comm::shown(path))
        })?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if config.client_auth_type == ClientAuth::VerifyClientCertIfGiven {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    Ok(Some(builder.build()?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let name = crate::core::comm::shown(path);
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read certificates from {name}"))?;
    if certificates.is_empty() {
        bail!("{name} has no certificate");
    }
    Ok(certificates)
}
