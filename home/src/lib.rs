//! Who may write what: images, commits, leases.
