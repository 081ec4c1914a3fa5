//! Which certificate authorities count.

use super::{Settings, SetupError};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The authorities of the host, and the one that its owner added. Without either, those that the
/// program was built with.
pub(super) fn config(settings: &Settings) -> Result<TlsConfig, SetupError> {
    let mut certificates = match fs::read(&settings.authorities) {
        Ok(bundle) => parse(&bundle).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    if let Some(path) = &settings.authority {
        certificates.extend(read(path)?);
    }
    let roots = if certificates.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::Specific(Arc::new(certificates))
    };
    Ok(TlsConfig::builder().root_certs(roots).build())
}

fn read(path: &Path) -> Result<Vec<Certificate<'static>>, SetupError> {
    let failed = |source| SetupError::Authority { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    parse(&bytes)
        .filter(|found| !found.is_empty())
        .ok_or_else(|| failed(std::io::Error::other("there is no certificate in it")))
}

fn parse(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.ok()? {
            found.push(certificate);
        }
    }
    Some(found)
}
