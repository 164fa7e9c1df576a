//! A cluster in a box: nodes as network namespaces with the real agent, operator and plugin.
