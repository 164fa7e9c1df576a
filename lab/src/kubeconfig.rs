//! The file by which kubectl finds a lab.

/// A kubeconfig with one cluster, called `name`, at `url`.
pub(crate) fn render(name: &str, url: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {url}
users:
- name: admin
  user: {{}}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: admin
current-context: {name}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_reads_what_is_written() {
        let text = render("lab", "http://[fd00::1]:6443");
        let read: kube::config::Kubeconfig = serde_yaml_ng::from_str(&text).expect("a kubeconfig");
        assert_eq!(read.current_context.as_deref(), Some("lab"));
        let cluster = read.clusters[0].cluster.as_ref().expect("a cluster");
        assert_eq!(cluster.server.as_deref(), Some("http://[fd00::1]:6443"));
    }
}
