# A NixOS module: one service, confined as deploy/systemd/casemate.service is.
{ casemate }:
{ config, lib, pkgs, ... }:
let
  cfg = config.services.casemate;
  toml = pkgs.formats.toml { };
in
{
  options.services.casemate = {
    enable = lib.mkEnableOption "the Casemate LLM appliance";
    package = lib.mkOption {
      type = lib.types.package;
      default = casemate;
      description = "The package to run.";
    };
    settings = lib.mkOption {
      type = toml.type;
      default = { };
      description = "The configuration; see docs/configuration.md.";
    };
  };

  config = lib.mkIf cfg.enable {
    users.users.casemate = { isSystemUser = true; group = "casemate"; };
    users.groups.casemate = { };
    systemd.services.casemate = {
      description = "Casemate LLM appliance";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/casemate serve --config ${toml.generate "casemate.toml" ({ state_dir = "/var/lib/casemate/state"; } // cfg.settings)}";
        User = "casemate";
        Group = "casemate";
        StateDirectory = "casemate";
        KillMode = "mixed";
        TimeoutStopSec = 90;
        Restart = "on-failure";
        RestartPreventExitStatus = 78;
        NoNewPrivileges = true;
        CapabilityBoundingSet = "";
        UMask = "0077";
        LimitCORE = 0;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        PrivateMounts = true;
        ProtectKernelTunables = true;
        ProtectKernelModules = true;
        ProtectKernelLogs = true;
        ProtectControlGroups = true;
        ProtectClock = true;
        ProtectHostname = true;
        ProtectProc = "invisible";
        RestrictNamespaces = "user net mnt";
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
        RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" ];
        SystemCallArchitectures = "native";
      };
    };
  };
}
