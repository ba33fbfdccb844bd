//! The configuration that Envoy and baton share, byte for byte.

use super::Plan;

/// The text for reload `number`; every second one has one more route when routes shall change.
pub(super) fn text(plan: &Plan, number: u32) -> String {
    let extra = if plan.options.change_routes && number % 2 == 1 {
        "
                        - match: { prefix: /added }
                          direct_response: { status: 200, body: { inline_string: added } }"
    } else {
        ""
    };
    format!(
        r#"admin:
  address:
    socket_address: {{ address: 127.0.0.1, port_value: {admin} }}
static_resources:
  listeners:
    - name: http
      address:
        socket_address: {{ address: 127.0.0.1, port_value: {http} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: ingress_http
                codec_type: AUTO
                upgrade_configs:
                  - upgrade_type: websocket
                route_config:
                  name: local_route
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:{extra}
                        - match: {{ prefix: / }}
                          route: {{ cluster: up, timeout: 0s }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    - name: tcp
      address:
        socket_address: {{ address: 127.0.0.1, port_value: {tcp} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: tcp
                cluster: tcp_up
  clusters:
    - name: up
      connect_timeout: 5s
      type: STATIC
      load_assignment:
        cluster_name: up
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {{ address: 127.0.0.1, port_value: {http_upstream} }}
    - name: tcp_up
      connect_timeout: 5s
      type: STATIC
      load_assignment:
        cluster_name: tcp_up
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {{ address: 127.0.0.1, port_value: {tcp_upstream} }}
"#,
        admin = plan.admin.port(),
        http = plan.http.port(),
        tcp = plan.tcp.port(),
        http_upstream = plan.upstream.http.port(),
        tcp_upstream = plan.upstream.tcp.port(),
    )
}
