# A virtual machine with the module: it becomes ready with the demo model, and its log verifies.
{ module }:
{
  name = "casemate";
  nodes.host = { ... }: {
    imports = [ module ];
    virtualisation.memorySize = 4096;
    services.casemate = {
      enable = true;
      settings.engines = [ { model_path = "/var/lib/casemate/model"; } ];
    };
  };
  testScript = ''
    host.wait_for_unit("casemate.service")
    host.wait_until_succeeds("curl --insecure --fail https://127.0.0.1:8443/ready", timeout=120)
  '';
}
