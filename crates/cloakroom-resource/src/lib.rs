//! cloakroom-resource
