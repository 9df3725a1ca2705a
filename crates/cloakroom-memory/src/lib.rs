//! cloakroom-memory
