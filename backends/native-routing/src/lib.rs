//! Routing by the network itself: direct node routes.
