//! Given/when/then, a running system on free ports, a database per test, a fault proxy
