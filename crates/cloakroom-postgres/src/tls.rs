//! TLS by rustls, with what libpq checks in each `sslmode`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{Address, Tls};
use crate::error::ConnectError;

/// What connects with TLS; `None` if TLS is never used.
pub(crate) fn connector(
    address: &Address,
    own: Option<ClientConfig>,
) -> Result<Option<MakeRustlsConnect>, ConnectError> {
    if address.tls == Tls::Never {
        return Ok(None);
    }
    if let Some(own) = own {
        return Ok(Some(MakeRustlsConnect::new(own)));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("the TLS versions cannot be configured", error))?;
    let config = match (address.tls, &address.root) {
        (Tls::Never | Tls::IfOffered | Tls::Unchecked, _) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Partly { roots: None, provider })),
        (Tls::Chain, Some(root)) => {
            let roots = Some(roots(root)?);
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Partly { roots, provider }))
        }
        (Tls::Chain, None) => {
            let why = "there is no root certificate to check against".to_owned();
            return Err(ConnectError::Tls { why, source: None });
        }
        (Tls::ChainAndName, Some(root)) => builder.with_root_certificates(roots(root)?),
        (Tls::ChainAndName, None) => {
            let verifier = rustls_platform_verifier::Verifier::new(provider)
                .map_err(|error| failed("the system's root certificates cannot be used", error))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(Some(MakeRustlsConnect::new(config.with_no_client_auth())))
}

fn failed(
    why: impl Into<String>,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ConnectError {
    ConnectError::Tls { why: why.into(), source: Some(error.into()) }
}

fn roots(path: &Path) -> Result<RootCertStore, ConnectError> {
    let unreadable = || format!("the root certificate {} cannot be read", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| failed(unreadable(), error))?
    {
        let certificate = certificate.map_err(|error| failed(unreadable(), error))?;
        roots.add(certificate).map_err(|error| failed(unreadable(), error))?;
    }
    if roots.is_empty() {
        return Err(ConnectError::Tls { why: unreadable(), source: None });
    }
    Ok(roots)
}

/// Checks the chain of a certificate, or nothing, and never its name. The signature of the handshake is
/// always checked.
#[derive(Debug)]
struct Partly {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Partly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let parsed = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
