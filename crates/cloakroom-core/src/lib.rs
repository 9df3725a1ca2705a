//! cloakroom-core
