//! What tests of sources, sinks and queries need: a manual clock, contract suites, a faulty store.
