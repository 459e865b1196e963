# The same as an OCI image: fixed times, sorted files, not root, no shell.
{ dockerTools, casemate }:
dockerTools.streamLayeredImage {
  name = "casemate";
  tag = casemate.version;
  contents = [ casemate ];
  created = "1970-01-01T00:00:01Z";
  maxLayers = 20;
  config = {
    Entrypoint = [ "${casemate}/bin/casemate" ];
    Cmd = [ "serve" "--config" "/etc/casemate/casemate.toml" ];
    User = "65532:65532";
    WorkingDir = "/var/lib/casemate";
    ExposedPorts = { "8443/tcp" = { }; "8444/tcp" = { }; };
    StopSignal = "SIGTERM";
  };
}
