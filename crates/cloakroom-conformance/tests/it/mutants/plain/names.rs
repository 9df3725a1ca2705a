//! What names are filed under: byte for byte, unless that is what the store does wrong.

use cloakroom_core::revocation::RuleKey;
use cloakroom_core::{ClientId, Jti, Subject};

use crate::mutants::fault::Fault;

pub(crate) fn filed_subject(fault: Option<Fault>, subject: &Subject) -> Subject {
    let name = subject.id();
    let filed = match fault {
        Some(Fault::SubjectsFoldCase) => name.to_lowercase(),
        Some(Fault::SubjectsEndAtNul) => name.split('\0').next().unwrap_or_default().to_owned(),
        Some(Fault::SubjectsAreCut) => first_bytes(name, 191).to_owned(),
        Some(Fault::SubjectsLoseAstral) => {
            name.chars().map(|c| if c.len_utf8() == 4 { '?' } else { c }).collect()
        }
        _ => name.to_owned(),
    };
    match subject {
        Subject::Client(_) if fault != Some(Fault::SubjectsLoseKind) => Subject::client(filed),
        _ => Subject::user(filed),
    }
    .unwrap_or_else(|_| subject.clone())
}

pub(crate) fn filed_client(fault: Option<Fault>, client: &ClientId) -> ClientId {
    let name = client.as_str();
    match fault {
        Some(Fault::ClientsFoldCase) => ClientId::new(name.to_lowercase()),
        Some(Fault::ClientsLoseBlanks) => ClientId::new(name.trim_end()),
        _ => return client.clone(),
    }
    .unwrap_or_else(|_| client.clone())
}

pub(crate) fn filed_key(fault: Option<Fault>, key: &RuleKey) -> RuleKey {
    match key {
        RuleKey::Subject(subject) => RuleKey::Subject(filed_subject(fault, subject)),
        RuleKey::Client(client) => RuleKey::Client(filed_client(fault, client)),
        RuleKey::SubjectAtClient(subject, client) if fault == Some(Fault::PairKeysCollide) => {
            let both = format!("{}{}", subject.id(), client.as_str());
            Jti::new(both).map_or_else(|_| key.clone(), RuleKey::Jti)
        }
        RuleKey::Key(kid) if fault == Some(Fault::RuleKindsCollide) => {
            Jti::new(kid.as_str()).map_or_else(|_| key.clone(), RuleKey::Jti)
        }
        RuleKey::SubjectAtClient(subject, client) => {
            RuleKey::SubjectAtClient(filed_subject(fault, subject), filed_client(fault, client))
        }
        RuleKey::Jti(jti) if fault == Some(Fault::JtisFoldCase) => {
            RuleKey::Jti(Jti::new(jti.as_str().to_lowercase()).unwrap_or_else(|_| jti.clone()))
        }
        other => other.clone(),
    }
}

fn first_bytes(name: &str, mut length: usize) -> &str {
    if name.len() <= length {
        return name;
    }
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    &name[..length]
}
