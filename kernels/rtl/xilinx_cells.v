// Models of the few UltraScale+ cells that a mapped multiply-accumulator uses, for simulating a netlist.
module LUT1 #(parameter [1:0] INIT = 0) (input I0, output O);
  assign O = INIT[I0];
endmodule
module LUT2 #(parameter [3:0] INIT = 0) (input I0, I1, output O);
  assign O = INIT[{I1, I0}];
endmodule
module LUT3 #(parameter [7:0] INIT = 0) (input I0, I1, I2, output O);
  assign O = INIT[{I2, I1, I0}];
endmodule
module LUT4 #(parameter [15:0] INIT = 0) (input I0, I1, I2, I3, output O);
  assign O = INIT[{I3, I2, I1, I0}];
endmodule
module LUT5 #(parameter [31:0] INIT = 0) (input I0, I1, I2, I3, I4, output O);
  assign O = INIT[{I4, I3, I2, I1, I0}];
endmodule
module LUT6 #(parameter [63:0] INIT = 0) (input I0, I1, I2, I3, I4, I5, output O);
  assign O = INIT[{I5, I4, I3, I2, I1, I0}];
endmodule
module INV (input I, output O);
  assign O = ~I;
endmodule
module MUXF7 (input I0, I1, S, output O);
  assign O = S ? I1 : I0;
endmodule
module MUXF8 (input I0, I1, S, output O);
  assign O = S ? I1 : I0;
endmodule
// Four bits of a carry chain: S picks between passing the carry on and generating it from DI.
module CARRY4 (input CI, CYINIT, input [3:0] DI, S, output [3:0] CO, O);
  wire c0 = CI | CYINIT;
  assign O = S ^ {CO[2:0], c0};
  assign CO[0] = S[0] ? c0 : DI[0];
  assign CO[1] = S[1] ? CO[0] : DI[1];
  assign CO[2] = S[2] ? CO[1] : DI[2];
  assign CO[3] = S[3] ? CO[2] : DI[3];
endmodule
module FDRE #(parameter [0:0] INIT = 0, IS_C_INVERTED = 0, IS_D_INVERTED = 0, IS_R_INVERTED = 0) (input C, CE, D, R, output reg Q);
  initial Q = INIT;
  always @(posedge C) if (R ^ IS_R_INVERTED) Q <= 1'b0; else if (CE) Q <= D ^ IS_D_INVERTED;
endmodule
module FDSE #(parameter [0:0] INIT = 0, IS_C_INVERTED = 0, IS_D_INVERTED = 0, IS_S_INVERTED = 0) (input C, CE, D, S, output reg Q);
  initial Q = INIT;
  always @(posedge C) if (S ^ IS_S_INVERTED) Q <= 1'b1; else if (CE) Q <= D ^ IS_D_INVERTED;
endmodule
