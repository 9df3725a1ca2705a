//! cloakroom-jwt
